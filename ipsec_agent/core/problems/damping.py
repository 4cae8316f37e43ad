"""Which problems are shown: not those that only follow from another, nor those that soon pass."""

import math

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.problems.expiry import OUTDATED
from ipsec_agent.core.problems.problem import Problem, Severity


class Patience(Struct, frozen=True):
    """How a problem that comes and goes is calmed.

    Attributes:
        after: seconds that it must last before it is shown.
        kept: seconds for which it is shown after it was last seen.
    """

    after: float = 0.0
    kept: float = 0.0


NO_PATIENCE = Patience()

PATIENCE = {
    # A moment while charon starts; the next deadline tells.
    "charon-unresponsive": Patience(after=5),
    # Evidence is held for 20 s (guard.py: RECENT); what ends within 5 s was a repair.
    "clear-prevented": Patience(after=25),
    # As masquerade sends from while the uplink has no address.
    "source-not-on-link": Patience(after=25),
    "link-down": Patience(kept=5),
    # What was made is ended within the second, and is to be looked at by somebody.
    "peer-lies": Patience(kept=600),
    # An editor, or a deployment, that has not finished.
    "config-refused": Patience(after=60),
    # A container's link is often made first and given its MTU then.
    "mtu-too-large": Patience(after=10),
    "peer-one-way": Patience(kept=30),
    # A VM that restarts is silent for that long.
    "peer-silent": Patience(after=30),
    # One reading that was late, on a machine that is busy; the next one follows within a second.
    "unreadable": Patience(after=5),
    # Policies of an SA that charon has just ended or a killed charon left; see orphans.py.
    "policies-foreign": Patience(after=30),
}
"""By code. What is not here is shown at once and gone at once: a policy or a guard that is missing,
a peer that sends clear. A CRITICAL problem is shown at once, whatever this table says."""

COUNTER = Patience(after=40, kept=60)
"""Of the kernel's counters: their rise is seen for 30 s (xfrm_counters.py: WINDOW), so what only
one burst of 10 s counted, as when SAs are renewed, is not shown."""

CHARON = frozenset({"charon-down", "charon-unresponsive"})
OFFLINE = frozenset({"address-missing", "link-down"})

ABSENT = frozenset({"peer-silent", "peer-gone"})
"""What is a cause even where it is an information only: some VM is always being replaced."""

CAUSES: dict[str, frozenset[str]] = {
    "config-refused": frozenset({"reload-refused"}),
    "config-changed": frozenset({"reload-refused"}),
    # Without IPsec a peer answers no IKE; what enforcing would cut off is told by its traffic.
    "peer-silent": CHARON | OFFLINE | {"optional-on"},
    "peer-one-way": CHARON | OFFLINE | {"peer-silent"},
    "peer-esp-lost": CHARON | OFFLINE,
    "own-key-missing": CHARON,
    "policies-foreign": CHARON,
    "kernel-refuses": frozenset({"esp-unavailable"}),
    # All VMs share one certificate.
    "peer-refuses-us": OUTDATED,
    "peer-not-trusted": OUTDATED,
    "peer-certificate-invalid": OUTDATED | {"clock-wrong"},
    "xfrm-out-no-states": CHARON
    | OFFLINE
    | {"peer-silent", "peer-gone", "peer-refuses-us", "esp-unavailable"},
    "xfrm-acquire-error": CHARON,
    "xfrm-in-no-states": CHARON,
    "xfrm-in-tmpl-mismatch": frozenset({"policies-bypassed", "policies-foreign"}),
    "xfrm-out-pol-block": frozenset({"policies-foreign"}),
    "xfrm-in-pol-block": frozenset({"policies-foreign"}),
}
"""What is hidden, by its code, while one of these problems is shown.

What may mean a packet in clear is never hidden: neither policies nor a guard that are missing,
altered, lowered or unwanted, nor a peer that sends clear. Nor is `clear-prevented`, which names its
cause itself, nor anything CRITICAL.
"""


class Seen(Struct, frozen=True):
    """A problem that is there, or was a moment ago.

    Attributes:
        problem: as last seen, with the time since when it is there.
        last: when it was last seen, seconds since the epoch.
        shown: it was shown before, and stays so until it is gone.
    """

    problem: Problem
    last: float
    shown: bool


Memory = tuple[Seen, ...]
"""What damping remembers from pass to pass."""


def damped(
    problems: tuple[Problem, ...], memory: Memory, now: float
) -> tuple[tuple[Problem, ...], Memory]:
    """The problems to show, each with its time of beginning, and the next memory.

    Args:
        problems: what this pass sees.
        memory: from the pass before; () at first.
        now: seconds since the epoch. Where the clock was set back, waits start over.
    """
    before = {_key(seen.problem): seen for seen in memory}
    current = {_key(problem): problem for problem in problems}
    kept = [_seen(problem, before.get(key), now) for key, problem in current.items()]
    kept += [
        replace(seen, last=min(seen.last, now))
        for key, seen in before.items()
        if key not in current and now - min(seen.last, now) < patience(seen.problem.code).kept
    ]
    after = tuple(replace(seen, shown=_visible(seen, now)) for seen in kept)
    return tuple(seen.problem for seen in after if seen.shown), after


def due(memory: Memory, now: float) -> float:
    """Seconds from a pass until its patience alone has a problem shown or gone; else infinity.

    Args:
        memory: as that pass left it.
        now: its time.
    """
    moments = [_turn(seen, now) for seen in memory]
    return max(0.0, min(moments, default=math.inf) - now)


def _turn(seen: Seen, now: float) -> float:
    calm = patience(seen.problem.code)
    if seen.last < now:
        return seen.last + calm.kept
    return math.inf if seen.shown else seen.problem.since + calm.after


def uncovered(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """The problems without those that another one of them explains."""
    present = {
        problem.code
        for problem in problems
        if problem.severity is not Severity.INFO or problem.code in ABSENT
    }
    return tuple(
        problem
        for problem in problems
        if problem.severity is Severity.CRITICAL
        or not CAUSES.get(problem.code, frozenset()) & present
    )


def patience(code: str) -> Patience:
    """How a problem of this code is calmed."""
    return PATIENCE.get(code, COUNTER if code.startswith("xfrm-") else NO_PATIENCE)


def _key(problem: Problem) -> tuple[str, str]:
    return problem.code, problem.subject


def _seen(problem: Problem, before: Seen | None, now: float) -> Seen:
    since = min(before.problem.since, now) if before else now
    return Seen(replace(problem, since=since), now, shown=before.shown if before else False)


def _visible(seen: Seen, now: float) -> bool:
    waited = now - seen.problem.since >= patience(seen.problem.code).after
    return seen.shown or (
        # One that is gone, and only kept, does not appear.
        seen.last == now and (waited or seen.problem.severity is Severity.CRITICAL)
    )
