"""A second SA takes the traffic over: no end ever sends on an SA that the other does not have."""

import itertools
from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec import Struct, field
from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.handover import (
    LEVELS,
    answering,
    asking,
    label,
    level_here,
    level_there,
    priority,
)
from ipsec_agent.core.model import Address, Child, CredentialSet
from ipsec_agent.core.observed import IkeSa
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.plan import plan
from ipsec_agent.core.rotation import BOUND, LEFT_FOR, endings, in_force, moves
from ipsec_agent.core.steps import TerminateChild, TerminateSa
from tests.configs import config
from tests.core.test_orphans import child_sa
from tests.core.test_plan import loaded_world
from tests.examples import examples

SWITCHED = 5000.0
OLD = CredentialSet("0" * 12, "another", "CN=vm1", 1_798_934_400.0)
LATE = 30
"""Seconds of age: negotiations are over, and nobody has been waited for too long."""
LATER = 90
"""Seconds of age from which what both asked for ends, too."""
BOTH = frozenset({0, 1})


def test_the_levels_are_in_the_names() -> None:
    """Both ends read theirs from the child's name, whatever else is in it."""
    asked, answered = asking("ipsec-renew-abc-10.0.0.9", 2), answering("ipsec-10.0.0.0/16-x", 1)

    assert (level_here(asked), level_there(asked)) == (0, 2)
    assert (level_here(answered), level_there(answered)) == (1, 0)
    for plain in ("ipsec-10.0.0.0/16-10.0.0.5", "ipsec-renew-0123456789ab-10.0.0.9", ""):
        assert level_here(plain) == level_there(plain) == 0
    assert len({label(level) for level in range(1, LEVELS + 1)}) == LEVELS


class Sa(Struct, frozen=True):
    """One CHILD_SA with its IKE_SA, as both ends have it.

    Attributes:
        level: at the end that answered.
        old: the ends that have had another certificate since.
        within: the number of its IKE_SA where another CHILD_SA began that one.
    """

    number: int
    began: int
    level: int
    old: frozenset[int] = frozenset()
    within: int = 0

    @property
    def ike_sa(self) -> int:
        """The number of its IKE_SA."""
        return self.within or self.number


class End(Struct):
    """A VM: what it receives on, and what wants its policy, as charon orders it."""

    own: Address
    peer: Address
    received: set[int] = field(default_factory=set)
    order: list[tuple[int, int]] = field(default_factory=list)

    def install(self, number: int, level: int) -> None:
        """Both ways, the policy as kernel_netlink_ipsec.c orders it."""
        self.received.add(number)
        wanted = priority(_TRAP, level) if level else priority(_TRAP, 0)
        place = next((i for i, one in enumerate(self.order) if one[0] >= wanted), len(self.order))
        self.order.insert(place, (wanted, number))

    def remove(self, number: int) -> None:
        """Both ways."""
        self.received.discard(number)
        self.order = [one for one in self.order if one[1] != number]

    @property
    def sends_on(self) -> int:
        """What the policy names."""
        return self.order[0][1]


_WISHES = [
    desired(config(), Placement(address, (address,)))
    for address in map(ip_address, ("10.0.0.5", "10.0.0.9"))
]
_TRAP: Child = _WISHES[0].connections[-1].children[0]


class Pair:
    """Two VMs, driven by the plans that each makes of what it sees."""

    def __init__(self, levels: int = LEVELS) -> None:
        one, other = (wish.addresses[0] for wish in _WISHES)
        self.ends = (End(one, other), End(other, one))
        self.sas = [Sa(1, 0, 0)]
        self.levels = levels
        self.numbers = iter(range(2, 10_000))
        self.lost = 0
        for end in self.ends:
            end.install(1, 0)

    def seen(self, here: int, ages: dict[int, int] | None = None, *, age: int = LATE) -> Drift:
        """What one of them reads, where all is of an age but for some."""
        end, wish = self.ends[here], _WISHES[here]
        new = in_force(wish)
        assert new is not None
        children = {
            one.number: replace(
                child_sa(one.number, one.number * 10, age=(ages or {}).get(one.number, age)),
                name=_name(one, here),
                local=(ip_network(end.own),),
                remote=(ip_network(end.peer),),
            )
            for one in self.sas
        }
        sas = tuple(
            IkeSa(
                number,
                "ipsec-10.0.0.0/16",
                "ESTABLISHED",
                end.own,
                end.peer,
                True,
                LATE,
                tuple(children[one.number] for one in self.sas if one.ike_sa == number),
                made_with=OLD.mark if old else new.mark,
            )
            for number, old in {one.ike_sa: here in one.old for one in self.sas}.items()
        )
        world = loaded_world(wish, sas=sas, sets=(OLD, replace(new, since=SWITCHED)))
        states = tuple(
            replace(one, added=one.spi // 10, last_used=one.spi // 10 == end.sends_on)
            for one in world.states
        )
        return Drift(wish, replace(world, time=SWITCHED + 60, states=states))

    def check(self) -> None:
        """What one sends the other receives."""
        for one, other in (self.ends, self.ends[::-1]):
            self.lost += not one.order or one.sends_on not in other.received

    def reload(self, began: list[int], at: frozenset[int] = BOTH, *, shared: bool = False) -> None:
        """Another certificate at these ends; some then make a new SA, both at once if both do.

        Args:
            shared: charon takes the IKE_SA of the first for the second, which it does where the
                renewal answers that asks next (swanctl.py: renewal_message).
        """
        self.sas = [replace(one, old=one.old | at) for one in self.sas]
        made: list[Sa] = []
        for here in began:
            (step,) = moves(self.seen(here))
            level = step.connection.children[-1].level
            within = made[0].number if shared and made else 0
            number = next(self.numbers)
            made.append(Sa(number, here, level if level <= self.levels else 0, within=within))
        for one in made:
            self.ends[1 - one.began].install(one.number, one.level)
            self.check()
        for one in made:
            self.ends[one.began].install(one.number, 0)
            self.check()
        self.sas += made

    def settle(self, first: int) -> None:
        """Plans end what is too many, some after a while; with 2 both look before either acts."""
        both = (0, 1) if first > 1 else (first, 1 - first)
        for age, _ in itertools.product((LATE, LATER), range(2)):
            looks = [(here, self.seen(here, age=age)) for here in both]
            for here, seen in looks:
                for step in _endings(seen if first > 1 else self.seen(here, age=age)):
                    self.end(here, step)

    def end(self, here: int, step: TerminateSa | TerminateChild) -> None:
        """What one of them has decided."""
        # The DELETE of an IKE_SA is obeyed after it was answered: it may be later.
        whole = isinstance(step, TerminateSa)
        gone = [one for one in self.sas if step.unique_id == (one.ike_sa if whole else one.number)]
        for end in (here, 1 - here) if whole else (1 - here, here):
            for one in gone:
                self.ends[end].remove(one.number)
            self.check()
        self.sas = [one for one in self.sas if one not in gone]


def _name(one: Sa, here: int) -> str:
    if not one.level:
        return "ipsec-10.0.0.0/16"
    return asking("x", one.level) if one.began == here else answering("x", one.level)


def _endings(drift: Drift) -> list[TerminateChild | TerminateSa]:
    return [step for step in plan(drift) if isinstance(step, TerminateChild | TerminateSa)]


def _ended(drift: Drift) -> list[int]:
    return [step.unique_id for step in _endings(drift)]


def test_a_move_loses_nothing() -> None:
    """Whoever begins, and whoever acts first; one SA is left, the new one."""
    for (began, shared), first in itertools.product(
        (([0], False), ([1], False), *itertools.product(([0, 1], [1, 0]), (False, True))), range(3)
    ):
        pair = Pair()
        pair.reload(began, shared=shared)
        pair.settle(first)
        assert pair.lost == 0
        assert [one.old for one in pair.sas] == [frozenset()]


@pytest.mark.parametrize("first", range(3))
@pytest.mark.parametrize("began", [0, 1])
def test_the_peer_is_told_later(began: int, first: int) -> None:
    """It asks again, since the first new SA is of its old certificate; the last one stays."""
    pair = Pair()
    pair.reload([began], frozenset({began}))
    pair.reload([1 - began], frozenset({1 - began}))
    pair.settle(first)
    assert pair.lost == 0
    assert [(one.began, one.old) for one in pair.sas] == [(1 - began, frozenset())]


def test_without_it_what_is_sent_meanwhile_is_lost() -> None:
    """As with a peer that knows no label: this model does tell a loss."""
    pair = Pair(levels=0)
    pair.reload([0])
    assert pair.lost == 1


def test_who_was_asked_asks_next() -> None:
    """Its peer's SA is at 0 then, so that two levels last for ever."""
    pair = Pair()
    pair.reload([0])
    pair.settle(0)
    first = {here: len(moves(_early(pair, here))) for here in (0, 1)}
    assert first == {0: 0, 1: 1}
    pair.reload([0])
    pair.settle(0)
    assert pair.sas[0].level == 2
    assert pair.lost == 0


def _early(pair: Pair, here: int) -> Drift:
    """In the first second, all SAs are of another set."""
    pair.sas = [replace(one, old=BOTH) for one in pair.sas]
    drift = pair.seen(here)
    return Drift(drift.desired, replace(drift.observed, time=SWITCHED + 1))


turns = st.lists(st.sampled_from(["asked", "both", "in one", "later"]), max_size=6)


@settings(max_examples=examples(100), deadline=None)
@given(turns, st.integers(0, 1), st.integers(0, 2))
def test_many_moves(turns: list[str], start: int, first: int) -> None:
    """Each by who was asked last, by both at once, in two IKE_SAs or in one, or by one and then by
    the other.
    """
    pair = Pair()
    for turn in turns:
        asked = next((1 - one.began for one in pair.sas if one.level), start)
        if turn == "later":
            pair.reload([asked], frozenset({asked}))
            pair.reload([1 - asked], frozenset({1 - asked}))
        else:
            began = [asked] if turn == "asked" else [asked, 1 - asked]
            pair.reload(began, shared=turn == "in one")
        pair.settle(first)
        assert pair.lost == 0
        assert len(pair.sas) == 1


def test_an_agent_that_asked_may_come_back() -> None:
    """Its peer ends the old SA after ten minutes only: it sends on it, and loses some packets."""
    pair = Pair()
    pair.reload([0])
    new = pair.sas[-1].number
    assert _ended(pair.seen(1, {new: int(BOUND) - 1})) == []
    assert _ended(pair.seen(1, {new: int(BOUND)})) == [1]


def test_the_ike_sa_goes_after_its_child() -> None:
    """A DELETE of both is obeyed after it is answered, one of the CHILD_SA before."""
    pair = Pair()
    pair.reload([0])
    seen = pair.seen(0)
    (step,) = (step for step in plan(seen) if isinstance(step, TerminateChild | TerminateSa))
    assert isinstance(step, TerminateChild)
    assert seen.observed.charon is not None
    sas = tuple(
        replace(sa, children=()) if sa.unique_id == 1 else sa for sa in seen.observed.charon.sas
    )
    bare = replace(seen.observed, charon=replace(seen.observed.charon, sas=sas))
    (step,) = endings(Drift(seen.desired, bare))
    assert step == TerminateSa(1, "10.0.0.9 has one with the certificate in force")


def test_what_is_left_of_two_that_crossed() -> None:
    """Both asked: the CHILD_SA that is too many ends first, then the empty IKE_SA, a minute old."""
    pair = Pair()
    pair.reload([0, 1])
    found = [step for here in (0, 1) for step in _endings(pair.seen(here))]
    assert all(isinstance(step, TerminateChild) for step in found)
    seen = pair.seen(0)
    assert seen.observed.charon is not None
    for age, count in ((LEFT_FOR - 1, 0), (LEFT_FOR, 1)):
        sas = tuple(
            replace(sa, children=(), age=age) if sa.unique_id == 3 else sa
            for sa in seen.observed.charon.sas
            if sa.unique_id != 1
        )
        observed = replace(seen.observed, charon=replace(seen.observed.charon, sas=sas))
        steps = endings(Drift(seen.desired, observed))
        assert [step.unique_id for step in steps] == [3] * count


@pytest.mark.parametrize("first", [0, 1])
def test_nothing_ends_before_it_is_settled(first: int) -> None:
    """A negotiation may be crossed by another, so that the old SA stays for 15 s."""
    pair = Pair()
    pair.reload([0])
    young = pair.seen(first, {pair.sas[-1].number: 14})
    assert _ended(young) == []
