"""What a pass says: its problems, the snapshot for the status, the lines of the log."""

import math
import os
from collections import deque
from collections.abc import Mapping
from ipaddress import ip_address

import structlog
from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent import __version__
from ipsec_agent.core.budget import EXEMPT, Waiting
from ipsec_agent.core.charon_log import Said, counterpart, explain, sign
from ipsec_agent.core.config import Config
from ipsec_agent.core.config_state import ConfigState
from ipsec_agent.core.desired_guard import lockouts
from ipsec_agent.core.drain import Drain
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.events import Event, History, Seen, followed, seen
from ipsec_agent.core.health import Assessment, Memory, assess
from ipsec_agent.core.liars import Lie
from ipsec_agent.core.model import Address
from ipsec_agent.core.order import Unsafe
from ipsec_agent.core.orphans import renewals_wait
from ipsec_agent.core.pacing import TURN
from ipsec_agent.core.peers import pokes_wait
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.charon import keeps_ending
from ipsec_agent.core.problems.config import config_problems
from ipsec_agent.core.problems.damping import due
from ipsec_agent.core.problems.esp_lost import EACH, to_probe, waits
from ipsec_agent.core.problems.guard import unknown_lockout_problems
from ipsec_agent.core.problems.kept_faults import (
    Kept,
    hearing_turned_back,
    line_turned_back,
    turned_back,
)
from ipsec_agent.core.problems.optional import CODE as OPTIONAL
from ipsec_agent.core.problems.peer_faults import Hearing, stayed
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity, healthy
from ipsec_agent.core.rotation import moves_wait
from ipsec_agent.core.status import Snapshot, State
from ipsec_agent.errors import AgentError

LOG_LINES, LOG_LINES_AGE = 2048, 120.0
"""Lines of charon's log that are kept, and for how many seconds they explain something: two of each
of 1,000 peers, since what one says twice weighs more."""

COUNTERPARTS = 4096
"""IKE_SAs whose peer is remembered: a fleet of 1,000 has some of each peer."""

STEPS_LOGGED = 20

OF_CHARON = frozenset({"charon", "policies", "private key"})
"""Kinds of repair that a charon which ends again and again uses up: each new one is told all."""


class Pass(Struct, frozen=True):
    """A pass that is over.

    Attributes:
        failures: what failed, by its name.
        done: the steps performed.
        lies: what peers had made that was no SA between two hosts.
        unsafe: planned steps that were left out.
        waiting: kinds of repair whose budget is used up.
    """

    number: int
    config: Config
    placement: Placement | None
    drift: Drift
    failures: tuple[tuple[str, AgentError], ...]
    done: tuple[str, ...]
    lies: tuple[Lie, ...]
    unsafe: tuple[Unsafe, ...]
    waiting: tuple[Waiting, ...]
    guard_lowered: bool
    essential: EssentialAddresses


class Reporter:
    """Makes each pass's snapshot; it remembers what only the comparison with earlier ones tells."""

    def __init__(self) -> None:
        self.config_state: ConfigState | None = None
        self.of_metrics: tuple[Problem, ...] = ()
        self.of_proof: tuple[Problem, ...] = ()
        self._lines: deque[LogLine] = deque(maxlen=LOG_LINES)
        self._counterparts: dict[int, str] = {}
        self._hearings: dict[str, Hearing] = {}
        self._shown: tuple[Problem, ...] = ()
        self._history = History()
        self._memory = Memory()
        self._due = math.inf
        self._now = 0.0
        self._started = False
        self._warned = 0.0
        self._log = structlog.get_logger("reconcile")

    @property
    def due(self) -> float:
        """Seconds from the newest pass until time alone makes another one worth it.

        A problem is to be shown, or is gone, by patience; or a peer has its turn.
        """
        return self._due

    @property
    def suspects(self) -> tuple[Address, ...]:
        """The peers with which something fails."""
        return tuple(ip_address(one.peer) for one in self._memory.suspects)

    @property
    def probes(self) -> tuple[Address, ...]:
        """The peers that are to be sent what they answer, after the newest pass."""
        return to_probe(self._memory.trials, self._now)

    def resume(self, kept: Kept, events: tuple[Event, ...] = ()) -> None:
        """Take up, before the first pass, what an earlier agent knew and saw."""
        self._history = History(events)
        clear = replace(self._memory.clear, talks=kept.talks)
        self._memory = replace(self._memory, suspects=kept.suspects, clear=clear)
        if kept.left_out:
            self._log.warning("faults.json has more faults of a peer than kinds", out=kept.left_out)

    def heard(self, said: Said, now: float) -> bool:
        """Keep a line of charon's log if it explains something; whether it does.

        That of its IKE_SA is meant; the line counts only where that one is not known.
        """
        peer = counterpart(said)
        if peer:
            self._remember({said.ike_sa: peer})
        self._hear(said, now)
        found = explain(said)
        if found is None:
            return False
        peer = self._counterparts.get(said.ike_sa, "") or found.peer
        self._lines.append(LogLine(found.code, found.message, peer, found.hint, now))
        return True

    def _hear(self, said: Said, now: float) -> None:
        """Keep what a line tells of a peer beside complaints."""
        found = sign(said)
        if found is None:
            return
        told = {found[0].value: now}
        peer = found[1] or self._counterparts.get(said.ike_sa, "")
        if peer:
            # As the newest.
            self._hearings[peer] = replace(self._hearings.pop(peer, Hearing()), **told)
            if len(self._hearings) > COUNTERPARTS:
                del self._hearings[next(iter(self._hearings))]

    def report(self, ended: Pass) -> Snapshot:
        """Judge a pass, log what is new, and make the snapshot."""
        observed = ended.drift.observed
        if observed.time < self._now:
            self._turn_back(observed.time)
        if observed.charon is not None:
            known = [sa for sa in observed.charon.sas if not sa.remote.is_unspecified]
            self._remember({sa.unique_id: str(sa.remote) for sa in known})
        for peer in stayed(self._hearings, observed.charon, observed.time):
            self._hearings[peer] = replace(self._hearings[peer], farewell=0.0)
        assessment = self._assess(ended)
        self._memory, problems = assessment.memory, assessment.problems
        self._now = observed.time
        self._due = due(self._memory.seen, observed.time)
        if waits(self._memory.trials):
            self._due = min(self._due, EACH)
        if renewals_wait(ended.drift) or pokes_wait(ended.drift) or moves_wait(ended.drift):
            self._due = min(self._due, TURN)
        if _enforced(ended):
            self._started = True
        self._history = followed(self._history, self._seen(ended, assessment))
        snapshot = Snapshot(
            config=ended.config,
            placement=ended.placement,
            drift=ended.drift,
            problems=problems,
            state=_state(started=self._started, problems=problems, drain=observed.drain),
            pid=os.getpid(),
            version=__version__,
            passes=ended.number,
            traffic=assessment.peers,
            suspects=self._memory.suspects,
            guard_lowered=ended.guard_lowered,
            clear=self._memory.clear,
            events=self._history.events,
        )
        self._tell(ended, problems)
        self._shown = problems
        return snapshot

    def _seen(self, ended: Pass, assessment: Assessment) -> Seen:
        state = self.config_state
        return seen(
            ended.config,
            ended.drift,
            assessment.problems,
            assessment.peers,
            refused=state.reload_refused if state else "",
            done=ended.done,
        )

    def _turn_back(self, now: float) -> None:
        """Follow a clock that was set back since the pass before."""
        by = self._now - now
        suspects = turned_back(self._memory.suspects, now, by)
        self._memory = replace(self._memory, suspects=suspects)
        for peer, told in self._hearings.items():
            self._hearings[peer] = hearing_turned_back(told, now, by)
        lines = [line_turned_back(line, now, by) for line in self._lines]
        self._lines = deque(lines, maxlen=LOG_LINES)

    def _remember(self, counterparts: Mapping[int, str]) -> None:
        for number, peer in counterparts.items():
            # As the newest, since a new charon counts from 1 again.
            self._counterparts.pop(number, None)
            self._counterparts[number] = peer
        for number in tuple(self._counterparts)[:-COUNTERPARTS]:
            del self._counterparts[number]

    def _assess(self, ended: Pass) -> Assessment:
        observed = ended.drift.observed
        addresses = tuple(own.address for own in observed.network.addresses)
        dies = keeps_ending(observed)
        return assess(
            ended.config,
            ended.placement,
            ended.drift,
            self._memory,
            failures=(
                *(_failure(what, error) for what, error in ended.failures),
                *(_undone(it) for it in ended.waiting if not (dies and it.kind in OF_CHARON)),
                *(_left_out(one) for one in ended.unsafe),
                *(config_problems(self.config_state) if self.config_state else ()),
                *self.of_metrics,
                *self.of_proof,
                *unknown_lockout_problems(ended.essential, ended.drift.desired),
            ),
            lines=tuple(line for line in self._lines if line.time >= observed.time - LOG_LINES_AGE),
            heard=self._hearings,
            lockouts=lockouts(ended.config, addresses, observed.network.gateways, ended.essential),
            lowered=ended.guard_lowered,
            lies=ended.lies,
        )

    def _tell(self, ended: Pass, problems: tuple[Problem, ...]) -> None:
        if ended.done:
            self._log.info("pass", steps=len(ended.done), did=ended.done[:STEPS_LOGGED])
        known = {(problem.code, problem.subject, problem.severity) for problem in self._shown}
        for problem in problems:
            if (problem.code, problem.subject, problem.severity) not in known:
                self._log_at(problem.severity, "problem", problem, hint=problem.hint)
        now = {(problem.code, problem.subject) for problem in problems}
        self._remind(ended, problems)
        for problem in self._shown:
            if (problem.code, problem.subject) not in now:
                self._log_at(Severity.INFO, "problem solved", problem)

    def _remind(self, ended: Pass, problems: tuple[Problem, ...]) -> None:
        """Warn again, each `optional_warn_interval`, while IPsec is optional."""
        on = next((problem for problem in problems if problem.code == OPTIONAL), None)
        if on is None:
            self._warned = 0.0
            return
        time, each = ended.drift.observed.time, ended.config.optional_warn_interval * 3600
        # The first time it is a new problem. The clock may have been set back.
        if not self._warned or time < self._warned:
            self._warned = time
        elif each and time - self._warned >= each:
            self._warned = time
            self._log_at(on.severity, "problem lasts", on, hint=on.hint)
        if each:
            self._due = min(self._due, max(self._warned + each - time, 0.0))

    def _log_at(self, level: Severity, event: str, problem: Problem, **more: str) -> None:
        say = getattr(self._log, level.value)
        say(event, code=problem.code, subject=problem.subject, message=problem.message, **more)


def _enforced(ended: Pass) -> bool:
    """Whether IPsec is enforced. What else failed is a problem, and delays nothing."""
    desired, observed = ended.drift.desired, ended.drift.observed
    unread = {name for name, _ in observed.unreadable}
    guard = observed.guard.mark if observed.guard else ""
    return (
        desired.placed
        and "placement" not in dict(ended.failures)
        and not unread & {"charon", "policies", "guard", "network"}
        and not ended.drift.missing
        and (desired.guard is None or desired.guard.mark == guard)
    )


def _state(*, started: bool, problems: tuple[Problem, ...], drain: Drain | None) -> State:
    if not started:
        return State.STARTING
    if drain is not None:
        return State.DRAINING
    return State.RUNNING if healthy(problems) else State.DEGRADED


def _failure(what: str, error: AgentError) -> Problem:
    return Problem("failed", Severity.ERROR, error.message, error.hint, what)


def _undone(waiting: Waiting) -> Problem:
    """Somebody undoes what the agent repairs, as often as it does."""
    kind, changed = waiting.kind, waiting.changed
    if kind == EXEMPT:
        return Problem(
            "guard-altered",
            Severity.CRITICAL,
            f"another program keeps changing which links the guard exempts ({changed}); clear"
            " packets may pass there until the agent has undone it, each time",
            "find that program and stop it: watch `nft monitor`; if a link leads to containers"
            " only, write agent.inside",
            kind,
        )
    what = f"{kind}: {changed}" if changed else kind
    return Problem(
        "repair-paused",
        Severity.ERROR,
        f"another program keeps undoing the agent's repairs ({what}); the agent repairs less often",
        "find the other program that changes IPsec, nftables or links on this VM, and stop it:"
        " `ip xfrm monitor`, `nft monitor`, `ip monitor link`",
        kind,
    )


def _left_out(unsafe: Unsafe) -> Problem:
    return Problem(
        "plan-unsafe",
        Severity.CRITICAL,
        f"the agent left out a step that would let clear packets pass ({unsafe.step}):"
        f" {unsafe.because}",
        "this is a fault of the agent; report it with its log: `journalctl -u ipsec-agent`",
        str(unsafe.step),
    )
