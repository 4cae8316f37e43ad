"""What charon refuses to load opens nothing: the trap that it was to replace stays meanwhile."""

import asyncio
from collections.abc import Callable, Iterable

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.steps import LoadConnection, ReinstallPolicies, Step
from ipsec_agent.errors import CharonRefusedError
from ipsec_agent.reconcile import Reconciler
from tests.configs import config
from tests.core.test_plan import HERE, OWN, PEERS, protects, wishes
from tests.examples import examples
from tests.fakes import FakeMachine, network


class Refusing(FakeMachine):
    """A charon that refuses some connections; after each step it is looked who is protected."""

    def __init__(self) -> None:
        super().__init__(network("10.0.0.5"))
        self.refused: frozenset[str] = frozenset()
        self.never: set[object] = set()
        self.watched: set[object] = set()
        self.refusals = 0

    async def perform(self, step: Step) -> None:
        """As charon does it, or not."""
        match step:
            case LoadConnection(connection) if connection.name in self.refused:
                self.refusals += 1
                raise CharonRefusedError("invalid value for: esp_proposals")
            case ReinstallPolicies(name) if name in self.refused:
                raise CharonRefusedError("installing failed")
        await super().perform(step)
        policies = tuple(self.kernel.values())
        self.never |= {peer for peer in self.watched if not protects(policies, peer)}  # type: ignore[arg-type]


def both(before: Config, after: Config) -> set[object]:
    """Peers that are to be encrypted before and after."""
    return {
        peer
        for peer in PEERS
        if Promise.of(before).encrypts(OWN, peer) and Promise.of(after).encrypts(OWN, peer)
    }


async def changed(before: Config, after: Config, refuses: Callable[[str], bool]) -> Refusing:
    """A change of config; charon refuses some of it, and is asked again and again."""
    machine = Refusing()
    loop = Reconciler(machine, before, lambda _snapshot: None)
    await loop.one_pass()
    machine.watched = both(before, after)
    machine.refused = frozenset(
        one.name for one in desired(after, HERE).connections if refuses(one.name)
    )
    loop.adopt(after)
    await loop.one_pass()
    # Whoever asks meanwhile has a pass in which what was refused is not tried again.
    tried = machine.refusals
    loop._only_asked = True  # as `look` does
    await loop.one_pass()
    assert machine.refusals == tried
    loop.heard()
    await loop.one_pass()
    return machine


def some(names: Iterable[int]) -> Callable[[str], bool]:
    """A choice of names, the same at each run."""
    chosen = set(names)
    return lambda name: sum(name.encode()) % 4 in chosen


enforced = wishes.map(lambda made: replace(made, optional=False))


@settings(max_examples=examples(40), deadline=None)
@given(enforced, enforced, st.sampled_from([{0, 1, 2, 3}, {0, 1}, {2, 3}]))
def test_a_refused_load_opens_nothing(before: Config, after: Config, names: set[int]) -> None:
    """Who was protected and is to be so stays protected after each step, and at each later try."""
    machine = asyncio.run(changed(before, after, some(names)))

    assert machine.never == set()


NARROW = config(("10.0.0.0/24",))
WIDE = config(("10.0.0.0/16",))


def test_the_old_trap_stays_until_the_new_one_is_loaded() -> None:
    """And goes with the first pass in which that succeeds."""

    async def scenario() -> None:
        machine = await changed(NARROW, WIDE, lambda _name: True)
        (old,) = (one.name for one in desired(NARROW, HERE).connections if one.name.startswith("i"))
        assert old in machine.loaded
        assert machine.refusals > 1
        assert machine.never == set()
        machine.refused = frozenset()
        loop = Reconciler(machine, WIDE, lambda _snapshot: None)
        await loop.one_pass()
        assert old not in machine.loaded
        assert {one.name for one in desired(WIDE, HERE).connections} <= set(machine.loaded)

    asyncio.run(scenario())
