"""What fails with a peer: it lasts until a handshake succeeds, or until the peer is gone.

Nobody may have tried again since: that makes nothing good. A peer is gone once it has said goodbye,
or has answered nothing for a while though it was asked: so a VM that was deleted is no fault.
"""

from collections.abc import Callable, Container, Iterable, Mapping

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.observed_peers import Neighbour
from ipsec_agent.core.problems.charon import (
    PEER_CODES,
    SILENT,
    STARTING,
    STARTING_SAYS,
    newest,
    said,
)
from ipsec_agent.core.problems.charon import over as line_over
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity
from ipsec_agent.core.words import instant

GONE_AFTER = 600.0
"""Seconds for which a peer must answer neither IKE nor neighbour discovery."""

FORGOTTEN_AFTER = 86_400.0
"""Seconds after which a peer that is gone is no longer told of."""

UNTRIED = 120.0
"""Seconds after the last attempt from which on it is said that there was none since."""

FAREWELL = 2.0
"""Seconds for which packets of a peer that has said goodbye may still come."""

OLDEST = 30 * 86_400.0
"""Seconds after which what was not said again is no longer told of."""

MOST = 4096
"""Peers that are remembered; of more, those that failed last."""

AT_ONCE = 2.0
"""Seconds within which charon says all that it has to say of one certificate."""

GONE = "peer-gone"

OUT_OF_TIME, NOT_TRUSTED = "peer-certificate-invalid", "peer-not-trusted"

IDENTITY_CODES = frozenset(
    {"peer-refuses-us", "peer-not-trusted", "peer-certificate-invalid", "peer-not-configured"}
)
"""What an IKE_SA disproves, even without a CHILD_SA: both have proved who they are."""


class Hearing(Struct, frozen=True):
    """When charon's log last told something of a peer; seconds since the epoch, 0 for never.

    Attributes:
        answered: a packet of IKE came from it.
        farewell: it ended an IKE_SA.
        succeeded: an SA was made with it.
        tried: one of both began to make an SA with the other, or has made an IKE_SA.
        proved: both have proved to each other who they are.
    """

    answered: float = 0.0
    farewell: float = 0.0
    succeeded: float = 0.0
    tried: float = 0.0
    proved: float = 0.0


def stayed(heard: Mapping[str, Hearing], charon: Charon | None, now: float) -> tuple[str, ...]:
    """The peers whose farewell was to one of several IKE_SAs: an SA with them is there later.

    Args:
        now: when charon was asked, seconds since the epoch.
    """
    left = {peer for peer, told in heard.items() if 0 < told.farewell < now - FAREWELL}
    if charon is None or not left:
        return ()
    there = {
        str(sa.remote)
        for sa in charon.sas
        if sa.state == "ESTABLISHED" and any(child.state == "INSTALLED" for child in sa.children)
    }
    return tuple(left & there)


class Fault(Struct, frozen=True):
    """A cause that charon's log has named.

    Attributes:
        line: the latest that names it.
        first: when the first came.
    """

    line: LogLine
    first: float

    @property
    def certain(self) -> bool:
        """Whether it is more than what a peer says, too, while it starts."""
        return STARTING_SAYS not in self.line.text or self.line.time - self.first >= STARTING


class Suspect(Struct, frozen=True):
    """A peer with which something fails. Times are seconds since the epoch, 0 for never.

    Attributes:
        peer: its address as text.
        heard: what the log last told of it.
        seen: when it last answered neighbour discovery.
        unanswered: when it last did not answer, by either.
        watched: since when this agent looks for it; 0 where that is since its first fault.
    """

    peer: str
    faults: tuple[Fault, ...]
    heard: Hearing = Hearing()
    seen: float = 0.0
    unanswered: float = 0.0
    watched: float = 0.0

    @property
    def known(self) -> bool:
        """Whether anybody was ever there: it answered IKE or neighbour discovery."""
        told = self.heard
        return any((told.answered, told.farewell, told.succeeded, told.proved, self.seen))

    @property
    def gone(self) -> float:
        """Since when it is gone, 0 where it is not."""
        if self.heard.farewell and self.heard.answered <= self.heard.farewell + FAREWELL:
            return self.heard.farewell
        first = min(fault.first for fault in self.faults)
        there = max(self.heard.answered, self.seen, self.watched, first)
        return there if self.unanswered - there >= GONE_AFTER else 0.0

    @property
    def shown(self) -> tuple[Fault, ...]:
        """The faults that are certain, and explained by no other one.

        It is not silent any more where it has refused since; a certificate out of its time is not
        trusted for that.
        """
        certain = [fault for fault in self.faults if fault.certain]
        refused = max((f.line.time for f in certain if f.line.code != SILENT), default=0.0)
        outdated = max((f.line.time for f in certain if f.line.code == OUT_OF_TIME), default=0.0)
        after = {SILENT: refused, NOT_TRUSTED: outdated + AT_ONCE if outdated else 0.0}
        return tuple(f for f in certain if f.line.time > after.get(f.line.code, 0.0))

    @property
    def code(self) -> str:
        """What is worst about it; "" where nothing is certain yet."""
        if self.gone:
            return GONE
        codes = [fault.line.code for fault in self.shown]
        return next((code for code in codes if code != SILENT), codes[0] if codes else "")

    @property
    def told(self) -> float:
        """When that was told last; 0 where nothing is certain yet."""
        times = (fault.line.time for fault in self.shown if fault.line.code == self.code)
        return self.gone or max(times, default=0.0)


Memory = tuple[Suspect, ...]
"""What is remembered from pass to pass."""


def followed(
    memory: Memory,
    lines: Iterable[LogLine],
    heard: Mapping[str, Hearing],
    drift: Drift,
    encrypted: Callable[[str], bool],
) -> Memory:
    """The memory after a pass.

    Args:
        memory: of the pass before; () at first.
        lines: of charon's log about peers, the young ones; those of earlier passes may be among
            them.
        heard: what else charon's log told of peers.
        encrypted: whether the config wants ESP with a peer.
    """
    now = drift.observed.time
    neighbours = {str(one.address): one for one in drift.observed.neighbours}
    suspects = {one.peer: one for one in memory}
    lines = sorted(lines, key=lambda line: line.time)
    latest = newest(drift.observed) if suspects or lines else {}
    identified, tries = _attempts(drift.observed) if suspects or lines else ({}, {})

    def lasts(line: LogLine) -> bool:
        told = heard.get(line.peer, Hearing())
        proved = max(identified.get(line.peer, 0.0), told.proved)
        proved = proved if line.code in IDENTITY_CODES else 0.0
        succeeded = told.succeeded
        return max(succeeded, proved) < line.time and not line_over(line, drift, latest)

    for line in filter(lasts, lines):
        before = suspects.get(line.peer, Suspect(line.peer, ()))
        suspects[line.peer] = replace(before, faults=_with(before.faults, line))
    found = []
    for one in suspects.values():
        lasting = tuple(f for f in one.faults if lasts(f.line) and _counts(f, now))
        if lasting and encrypted(one.peer):
            told = heard.get(one.peer, one.heard)
            told = replace(
                told, tried=max(told.tried, told.proved, tries.get(one.peer, 0.0), one.heard.tried)
            )
            after = _asked(replace(one, faults=lasting, heard=told), neighbours.get(one.peer), now)
            if not after.gone or now - after.gone < FORGOTTEN_AFTER:
                found.append(after)
    return tuple(sorted(found, key=lambda one: -max(f.line.time for f in one.faults))[:MOST])


def without(memory: Memory, dropped: Callable[[LogLine], bool]) -> Memory:
    """The memory without the faults that some lines name."""
    left = (
        replace(one, faults=tuple(fault for fault in one.faults if not dropped(fault.line)))
        for one in memory
    )
    return tuple(one for one in left if one.faults)


def _attempts(observed: Observed) -> tuple[dict[str, float], dict[str, float]]:
    """When the newest IKE_SA with each peer was made, and when one was last tried."""
    made: dict[str, float] = {}
    tried: dict[str, float] = {}
    for sa in observed.charon.sas if observed.charon else ():
        peer = str(sa.remote)
        if sa.state == "ESTABLISHED":
            # Whole seconds: it is not younger than that.
            made[peer] = max(made.get(peer, 0.0), observed.time - sa.age)
        now = observed.time if sa.state == "CONNECTING" else 0.0
        tried[peer] = max(tried.get(peer, 0.0), made.get(peer, 0.0), now)
    return made, tried


def _with(faults: tuple[Fault, ...], line: LogLine) -> tuple[Fault, ...]:
    """The faults after a line, which may be known."""
    same = next((fault for fault in faults if fault.line.code == line.code), None)
    if same is None:
        return (*faults, Fault(line, line.time))
    later = Fault(line, same.first) if line.time > same.line.time else same
    return tuple(later if fault is same else fault for fault in faults)


def _counts(fault: Fault, now: float) -> bool:
    """What a peer says while it starts is not kept for the next time that it starts."""
    return now - fault.line.time < (OLDEST if fault.certain else UNTRIED)


def _asked(one: Suspect, neighbour: Neighbour | None, now: float) -> Suspect:
    """The peer with what its neighbour's entry and its silence tell."""
    silent = max((f.line.time for f in one.faults if f.line.code == SILENT), default=0.0)
    seen, unanswered = one.seen, max(one.unanswered, silent)
    if neighbour is not None:
        seen = max(seen, min(neighbour.answered, now))
        unanswered = now if neighbour.failed else unanswered
    # The clock may have been set back.
    return replace(one, seen=min(seen, now), unanswered=min(unanswered, now))


def concerns(line: LogLine) -> bool:
    """Whether a line of charon's log is about a fault with a peer."""
    return bool(line.peer) and line.code in (PEER_CODES | {SILENT})


def problems(memory: Memory, drift: Drift) -> tuple[Problem, ...]:
    """One for each peer that is gone; for each other one, and each cause."""
    now, charon = drift.observed.time, drift.observed.charon
    suspected = {one.peer for one in memory}
    others = any(
        child.state == "INSTALLED" and str(sa.remote) not in suspected
        for sa in (charon.sas if charon else ())
        for child in sa.children
    )
    had = had_sas(drift.observed) if memory else frozenset()
    found: list[Problem] = []
    for one in memory:
        if one.gone:
            found.append(_gone(one))
        else:
            never = never_seen(one, had)
            found += [_fault(fault, one, now, others=others, never=never) for fault in one.shown]
    return tuple(found)


def had_sas(observed: Observed) -> frozenset[str]:
    """The peers that had an SA with this VM at any time that is remembered."""
    return frozenset(str(peer.address) for peer in observed.remembered)


def never_seen(one: Suspect, had: Container[str]) -> bool:
    """Whether nobody may live at an address: it never answered, and never had an SA.

    Args:
        had: the peers that had one.
    """
    return one.code == SILENT and not one.known and one.peer not in had


def _gone(one: Suspect) -> Problem:
    how = (
        "it has ended its IKE_SA"
        if one.gone == one.heard.farewell
        else "it answers neither IKE nor neighbour discovery"
    )
    return Problem(
        GONE,
        Severity.INFO,
        f"{one.peer} has been gone since {instant(one.gone)}: {how}",
        "do nothing if its VM was stopped or deleted; otherwise run `ipsec-agent status` there",
        one.peer,
    )


def _fault(fault: Fault, one: Suspect, now: float, *, others: bool, never: bool) -> Problem:
    line = fault.line
    since = "; nobody was ever seen there" if never else ""
    if now - line.time > UNTRIED:
        untried = "" if one.heard.tried > line.time else ", and no attempt since"
        since += f"{', last asked' if never else '; last seen'} at {instant(line.time)}{untried}"
    return Problem(
        line.code,
        # Where others answer, it is not this VM.
        Severity.INFO if line.code == SILENT and others else Severity.WARNING,
        f"{said(line)}{since}",
        line.hint,
        line.peer,
    )
