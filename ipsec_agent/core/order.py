"""The invariant of a plan: no step opens what was closed, wherever the plan is cut.

The planner is written so that this holds; `check_order` asks it of the plan itself, in the daemon
before each plan, too. A step that comes too early is left out: once what it has to wait for is
done, the next plan has it in its place.

It sees the plan and not what comes of it: a step that fails, or that another program undoes, looks
to it like one that is done. What is true afterwards the next pass reads in kernel and charon. But
where a trap could not be loaded, what would open is held back (`protects`, `opens`).
"""

import enum
from collections.abc import Iterator, Sequence
from itertools import groupby

from msgspec import Struct

from ipsec_agent.core.derived import derived
from ipsec_agent.core.model import Action, Desired, DesiredGuard
from ipsec_agent.core.steps import (
    ContinueCharon,
    DeletePolicy,
    DeleteState,
    ExemptLinks,
    GuardFlows,
    KillCharon,
    LoadAuthority,
    LoadConnection,
    LoadGuard,
    LoadKey,
    Poke,
    ReinstallPolicies,
    RememberPeers,
    RemoveGuard,
    Renew,
    SaveGuard,
    SaveTime,
    SetLevel,
    SetMtu,
    StartCharon,
    Step,
    TerminateChild,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
)


class Kind(enum.Enum):
    """What a step does to protection, in the words of a complaint."""

    GUARD = "the guard is loaded"
    NARROW = "the guard knows its links"
    SAVE = "the guard is saved"
    CREDENTIALS = "the credentials are loaded"
    SHUNT = "shunts are loaded"
    TRAP = "traps are loaded"
    REINSTALL = "policies are reinstalled"
    TIGHTEN = "traps require ESP"
    RELAX = "traps only use ESP"
    RENEW = "SAs are renewed"
    UNSHUNT = "shunts are unloaded"
    UNTRAP = "traps are unloaded"
    REVIVE = "charon is started or ended"
    END = "SAs are ended"
    DELETE = "orphans are deleted"
    WITHDRAW = "credentials are withdrawn"
    OPEN = "the guard is removed"
    FORGET = "the saved guard is removed"
    POKE = "peers are poked"
    OTHER = "other things are done"


LOADS = {
    Kind.CREDENTIALS,
    Kind.SHUNT,
    Kind.TIGHTEN,
    Kind.TRAP,
    Kind.REINSTALL,
    Kind.RELAX,
}
GUARD = {Kind.GUARD, Kind.NARROW}
LAST = {Kind.OPEN, Kind.FORGET}
WAITS: dict[Kind, set[Kind]] = {
    Kind.GUARD: set(),
    Kind.NARROW: {Kind.GUARD},
    Kind.SAVE: {Kind.GUARD},
    Kind.CREDENTIALS: GUARD,
    Kind.SHUNT: GUARD | {Kind.CREDENTIALS},
    # The operator's exceptions work before a trap can cut anyone off.
    Kind.TIGHTEN: GUARD | {Kind.SHUNT},
    # A charon that refuses a trap, or hangs at it, leaves none that lets pass.
    Kind.TRAP: GUARD | {Kind.CREDENTIALS, Kind.SHUNT, Kind.TIGHTEN},
    Kind.REINSTALL: GUARD | {Kind.CREDENTIALS, Kind.SHUNT, Kind.TIGHTEN, Kind.TRAP},
    Kind.RELAX: GUARD | (LOADS - {Kind.RELAX}),
    Kind.RENEW: GUARD | LOADS,
    # To take an exception away protects more.
    Kind.UNSHUNT: GUARD | LOADS,
    Kind.UNTRAP: GUARD | LOADS | {Kind.UNSHUNT},
    Kind.END: GUARD | LOADS | {Kind.UNSHUNT, Kind.UNTRAP},
    Kind.DELETE: GUARD | LOADS | {Kind.RENEW},
    # A packet to a peer without its trap would leave in clear.
    Kind.POKE: GUARD | LOADS,
    Kind.WITHDRAW: set(Kind) - {Kind.WITHDRAW, Kind.OTHER} - LAST,
    # What follows would be told to a charon that is not there.
    Kind.REVIVE: set(Kind) - {Kind.REVIVE} - LAST,
    Kind.OTHER: GUARD,
    Kind.OPEN: set(Kind) - LAST,
    Kind.FORGET: set(Kind) - {Kind.FORGET},
}
"""For each kind of step those that may not come after it."""

KINDS: dict[type[Step], Kind] = {
    LoadGuard: Kind.GUARD,
    ExemptLinks: Kind.NARROW,
    GuardFlows: Kind.NARROW,
    RemoveGuard: Kind.OPEN,
    SetMtu: Kind.OTHER,
    StartCharon: Kind.REVIVE,
    ContinueCharon: Kind.REVIVE,
    KillCharon: Kind.REVIVE,
    LoadAuthority: Kind.CREDENTIALS,
    LoadKey: Kind.CREDENTIALS,
    ReinstallPolicies: Kind.REINSTALL,
    Renew: Kind.RENEW,
    DeletePolicy: Kind.DELETE,
    DeleteState: Kind.DELETE,
    TerminateChild: Kind.END,
    Poke: Kind.POKE,
    RememberPeers: Kind.OTHER,
    SaveTime: Kind.OTHER,
    UnloadKey: Kind.WITHDRAW,
    UnloadAuthority: Kind.WITHDRAW,
}


PROTECTS = {Kind.TRAP, Kind.REINSTALL}
TOGETHER, TOGETHER_MOST = PROTECTS | {Kind.SHUNT}, 64
"""Kinds of steps that may be under way together, and how many: charon performs them in their order,
one after the other, but need not wait for the agent between two of them."""
OPENS = {Kind.UNTRAP} | LAST


class Unsafe(Struct, frozen=True):
    """A step that must not be performed, and why, as a clause."""

    step: Step
    because: str


def check_order(steps: Sequence[Step], desired: Desired) -> tuple[Unsafe, ...]:
    """The steps of a plan that would open what was closed; none in a plan that is right.

    It sees the plan, not its outcome. One look at each step, whatever the number of them.
    """
    return tuple(_unsafe(steps, desired))[::-1]


def _unsafe(steps: Sequence[Step], desired: Desired) -> Iterator[Unsafe]:
    """From the last to the first."""
    later: set[Kind] = set()
    for step in reversed(steps):
        kind = kind_of(step)
        early = WAITS[kind] & later
        because = _unwanted(step, desired)
        if _relaxes(step) and not desired.optional:
            because = "IPsec is not optional"
        if early:
            because = f"it comes before {min(one.value for one in early)}"
        if because:
            yield Unsafe(step, because)
        later.add(kind)


def kind_of(step: Step) -> Kind:
    """What a step does to protection."""
    match step:
        case LoadConnection(connection):
            kind = Kind.SHUNT if connection.action is Action.PASS else Kind.TRAP
        case UnloadConnection(name):
            kind = Kind.UNTRAP if name.startswith("ipsec-") else Kind.UNSHUNT
        case SaveGuard(guard):
            kind = Kind.FORGET if guard is None else Kind.SAVE
        case LoadKey(only=True):
            kind = Kind.WITHDRAW
        case SetLevel(optional=optional):
            kind = Kind.RELAX if optional else Kind.TIGHTEN
        case TerminateSa(at_once=at_once):
            # What a liar made has taken the place of what protects: it ends before all else.
            kind = Kind.OTHER if at_once else Kind.END
        case _:
            kind = KINDS[type(step)]
    return kind


def protects(step: Step) -> bool:
    """Whether nothing may be opened without this step: it may take the place of what goes."""
    return kind_of(step) in PROTECTS


def opens(step: Step) -> bool:
    """Whether this step opens what only a trap that is loaded in time keeps closed."""
    # A policy that is left, or whose connection is to go, still keeps something closed.
    return isinstance(step, DeletePolicy) or kind_of(step) in OPENS


def lacks(planned: Sequence[Step], chosen: Sequence[Step]) -> bool:
    """Whether a step that protects is planned, but not among those that are performed now."""
    if len(planned) == len(chosen):
        return False
    kept = set(map(id, chosen))
    return any(protects(step) for step in planned if id(step) not in kept)


def together(steps: Sequence[Step]) -> Iterator[tuple[Step, ...]]:
    """The steps in their order; those in one tuple, all of a kind, may be under way together."""
    for kind, run in groupby(steps, kind_of):
        alike = tuple(run)
        size = TOGETHER_MOST if kind in TOGETHER else 1
        yield from (alike[at : at + size] for at in range(0, len(alike), size))


def _unwanted(step: Step, desired: Desired) -> str:
    """Why a step opens wherever it is, "" where it does not."""
    match step:
        case LoadGuard(guard) if guard != desired.guard:
            return "it is not the guard that is wanted"
        case ExemptLinks(links) if desired.guard is None or not set(links) <= set(
            desired.guard.exempt
        ):
            return "it exempts links that are to be guarded"
        case RemoveGuard() | SaveGuard(None) if desired.guard is not None:
            return "the guard is wanted"
        case UnloadConnection(name) if name in _names(desired):
            return "the connection is wanted"
        case UnloadKey(key) if desired.credentials and key == desired.credentials.key_id:
            return "the key is wanted"
        case _:
            return ""


def _relaxes(step: Step) -> bool:
    """Whether a step lets pass in clear what has no SA."""
    match step:
        case LoadGuard(guard) | SaveGuard(DesiredGuard() as guard):
            return not guard.enforces
        case SetLevel(optional=optional):
            return optional
        case _:
            return False


@derived
def _names(desired: Desired) -> frozenset[str]:
    return frozenset(connection.name for connection in desired.connections)
