"""How often a thing is repaired: two programs that undo each other's work must not do it at full
speed.

A repair undoes what somebody else did; what a new config asks for is none. Each kind of repair has
a budget of its own, which refills with time. One is never held back: to guard a link again that
somebody exempts. It takes no time, and until then the link is open.
"""

from collections.abc import Container, Hashable, Iterable

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.steps import (
    ContinueCharon,
    ExemptLinks,
    GuardFlows,
    KillCharon,
    LoadConnection,
    LoadGuard,
    LoadKey,
    ReinstallPolicies,
    RemoveGuard,
    SaveGuard,
    SetLevel,
    SetMtu,
    StartCharon,
    Step,
)

MOST = 10.0
"""Repairs of a kind that may follow each other at once."""

REFILL = 5.0
"""Seconds for each further one."""

MADE_MOST = 256
"""Things whose last state is remembered; a VM has few links whose MTU is set."""

EXEMPT = "exempt links"
"""The kind of what undoes somebody else's exempt links."""

Wish = tuple[str, Hashable]
"""A kind, with what a step of it makes of the thing: the same once more is a repair."""


class Waiting(Struct, frozen=True):
    """A kind of repair whose budget is used up.

    Attributes:
        changed: what somebody else changes, "" where the kind says it.
    """

    kind: str
    changed: str = ""


class Budget(Struct, frozen=True):
    """What is left of each kind of repair.

    Attributes:
        left: (kind, repairs left), as of `time`; a kind that is not named has all of it.
        time: seconds since the epoch.
        made: what was made last of each thing that follows the VM's links, and so is often made
            otherwise without anybody's fault.
        changed: (kind, what the newest repair found changed).
    """

    left: tuple[tuple[str, float], ...] = ()
    time: float = 0.0
    made: tuple[Wish, ...] = ()
    changed: tuple[tuple[str, str], ...] = ()

    def at(self, now: float) -> "Budget":
        """The budget at a later time."""
        gained = max(now - self.time, 0.0) / REFILL
        left = tuple((kind, rest + gained) for kind, rest in self.left if rest + gained < MOST)
        return replace(self, left=left, time=now)

    def allowed(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        """The steps for which there is budget; steps that repair nothing always are."""
        rests = dict(self.left)
        return tuple(
            step for step in steps if _narrows(step) or rests.get(self.kind_of(step), MOST) >= 1
        )

    def spent(self, steps: Iterable[Step]) -> "Budget":
        """The budget after these steps; several of a kind are one repair."""
        rests, changed = dict(self.left), dict(self.changed)
        repairs = {kind: step for step in steps if (kind := self.kind_of(step))}
        for kind, step in repairs.items():
            rests[kind] = max(rests.get(kind, MOST) - 1, 0.0)
            changed[kind] = _changed(step)
        return replace(
            self, left=tuple(sorted(rests.items())), changed=tuple(sorted(changed.items()))
        )

    def after(self, steps: Iterable[Step], done: Container[str]) -> "Budget":
        """The same once those of the steps are performed that are among what was done."""
        made = dict(self.made)
        # Few steps have a wish: only these are looked for.
        made |= dict(wish for step in steps if (wish := _wish(step)) and str(step) in done)
        return replace(self, made=tuple(made.items())[-MADE_MOST:])

    def exhausted(self) -> tuple[Waiting, ...]:
        """The kinds that must wait."""
        changed = dict(self.changed)
        return tuple(Waiting(kind, changed.get(kind, "")) for kind, rest in self.left if rest < 1)

    def wait(self) -> float:
        """Seconds until the next of those that must wait may go on; 0 where none must."""
        return min(((1 - rest) * REFILL for _, rest in self.left if rest < 1), default=0.0)

    def kind_of(self, step: Step) -> str:
        """What a step repairs, "" for one that repairs nothing."""
        match step:
            case LoadGuard():
                return "guard"
            case LoadConnection() | ReinstallPolicies() | SetLevel():
                return "policies"
            case StartCharon() | ContinueCharon() | KillCharon():
                return "charon"
            # One that forgets the CAs that were removed is no repair.
            case LoadKey(only=False):
                return "private key"
            case _:
                wish = _wish(step)
                return wish[0] if wish is not None and wish in self.made else ""


def _wish(step: Step) -> Wish | None:
    match step:
        case ExemptLinks(links, ports, _):
            return EXEMPT, (links, ports)
        case GuardFlows(text):
            return "filter of flowtables", text
        case RemoveGuard():
            return "no guard", True
        case SaveGuard(guard):
            return "saved guard", guard and guard.mark
        case SetMtu(link, mtu):
            return f"MTU of link {link}", mtu
        case _:
            return None


def _narrows(step: Step) -> bool:
    """Whether a step has the guard cover more than it does."""
    return isinstance(step, ExemptLinks) and not set(step.instead) <= set(step.links)


def _changed(step: Step) -> str:
    match step:
        case ExemptLinks():
            others = set(step.instead) ^ set(step.links)
            return ", ".join(sorted(map(str, others))) or "UDP ports of tunnels"
        case LoadConnection(connection):
            return connection.name
        case ReinstallPolicies(connection):
            return connection
        case SetLevel(policy):
            return str(policy.selector.destination)
        case _:
            return ""
