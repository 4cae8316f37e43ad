"""How often a thing is repaired: two programs that undo each other's work must not do it at full
speed.

A repair undoes what somebody else did; what a new config asks for is none. Each kind of repair has
a budget of its own, which refills with time.
"""

from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.steps import (
    ContinueCharon,
    KillCharon,
    LoadConnection,
    LoadGuard,
    ReinstallPolicies,
    StartCharon,
    Step,
)

MOST = 10.0
"""Repairs of a kind that may follow each other at once."""

REFILL = 5.0
"""Seconds for each further one."""


class Budget(Struct, frozen=True):
    """What is left of each kind of repair.

    Attributes:
        left: (kind, repairs left), as of `time`; a kind that is not named has all of it.
        time: seconds since the epoch.
    """

    left: tuple[tuple[str, float], ...] = ()
    time: float = 0.0

    def at(self, now: float) -> "Budget":
        """The budget at a later time."""
        gained = max(now - self.time, 0.0) / REFILL
        return Budget(tuple((kind, min(rest + gained, MOST)) for kind, rest in self.left), now)

    def allowed(self, steps: Iterable[Step]) -> tuple[Step, ...]:
        """The steps for which there is budget; steps that repair nothing always are."""
        rests = dict(self.left)
        return tuple(step for step in steps if rests.get(kind_of(step), MOST) >= 1)

    def spent(self, steps: Iterable[Step]) -> "Budget":
        """The budget after these steps; several of a kind are one repair."""
        rests = dict(self.left)
        for kind in {kind_of(step) for step in steps} - {""}:
            rests[kind] = rests.get(kind, MOST) - 1
        return replace(self, left=tuple(sorted(rests.items())))

    def exhausted(self) -> tuple[str, ...]:
        """The kinds that must wait."""
        return tuple(kind for kind, rest in self.left if rest < 1)

    def wait(self) -> float:
        """Seconds until the next of those that must wait may go on; 0 where none must."""
        return min(((1 - rest) * REFILL for _, rest in self.left if rest < 1), default=0.0)


def kind_of(step: Step) -> str:
    """What a step repairs, "" for the others."""
    match step:
        case LoadGuard():
            return "guard"
        case LoadConnection() | ReinstallPolicies():
            return "policies"
        case StartCharon() | ContinueCharon() | KillCharon():
            return "charon"
        case _:
            return ""
