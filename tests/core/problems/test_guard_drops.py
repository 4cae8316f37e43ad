"""What the guard drops without naming whom is told from the growth of its counters."""

from ipaddress import ip_address

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard_table import PEERS_COUNTED
from ipsec_agent.core.health import Memory
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.problems.guard_drops import SAID_FOR
from ipsec_agent.core.problems.problem import Problem, healthy
from tests.vm import NOW, Vm, healthy_vm

FORGED = tuple(ClearPeer(ip_address(2**24 + n), 1, 100, 60) for n in range(PEERS_COUNTED))
"""A set that was filled a minute ago: none of these is news."""

FULL = healthy_vm().table(clear_in=FORGED, dropped_in=5000, clear_out=FORGED, dropped_out=5000)


def played(*steps: tuple[float, Vm]) -> list[dict[str, Problem]]:
    """The problems shown in each of some passes, at seconds after NOW, but for the full set's.

    Each pass has a reading of its own.
    """
    memory, shown = Memory(), []
    for number, (seconds, vm) in enumerate(steps, 1):
        read = vm.table(reading=number) if vm.observed.guard else vm
        found = read.but(time=NOW + seconds).assess(memory)
        memory = found.memory
        shown.append({it.code: it for it in found.problems if it.code != "guard-counters-full"})
    return shown


def test_who_is_not_named_is_told() -> None:
    """Whom the full set has no room for still makes the VM unhealthy, for as long as it sends."""
    more = FULL.table(dropped_in=5007)

    first, early, second, third, last = played(
        (0, FULL), (5, more), (10, more), (10 + SAID_FOR - 1, more), (10 + SAID_FOR, more)
    )

    assert (first, early, last) == ({}, {}, {})
    assert second["clear-received"].message == (
        "the guard dropped 7 clear packets from addresses that its full list has no room for"
    )
    assert not healthy(tuple(second.values()))
    assert third.keys() == {"clear-received"}


@pytest.mark.parametrize("ahead", [1, -1])
def test_counters_and_sets_of_different_moments_agree_later(ahead: int) -> None:
    """A packet that is in one and not yet in the other is not one without a name."""
    vm, (peer, *others) = FULL, FORGED
    seen = [(5, 5), (9, 9 + ahead), (20, 20), (31, 31 + ahead), (40, 40)]

    shown = played(
        *(
            (
                10.0 * n,
                vm.table(
                    clear_in=(replace(peer, packets=named), *others),
                    dropped_in=count + len(others),
                ),
            )
            for n, (named, count) in enumerate(seen)
        )
    )

    assert shown == [{}] * len(seen)


@pytest.mark.parametrize("ahead", [(1, 1, 0, 0, 1, 1), (0, 2, 2, 2, 2, 2)])
def test_whoever_sends_all_the_time_has_a_name(ahead: tuple[int, ...]) -> None:
    """Each reading may have a packet between set and counter; the list has room."""
    vm, peer = healthy_vm(), ClearPeer(ip_address("10.0.0.9"), 5, 500, 60)

    shown = played(
        *(
            (
                10.0 * n,
                vm.table(
                    clear_in=(replace(peer, packets=9 * n + 5),),
                    clear_out=(replace(peer, packets=9 * n + 5),),
                    dropped_in=9 * n + 5 + more,
                    dropped_out=9 * n + 5 + more,
                ),
            )
            for n, more in enumerate(ahead)
        )
    )

    assert shown == [{}] * len(ahead)


def test_the_same_reading_twice_confirms_nothing() -> None:
    """A pass may go by the reading of the one before."""
    more = FULL.table(dropped_in=5007, reading=2)
    memory = FULL.table(reading=1).assess().memory
    found = more.assess(memory)
    for seconds in (1, 2):
        found = more.but(time=NOW + seconds).assess(found.memory)

    assert "clear-received" not in {it.code for it in found.problems}


def test_a_difference_is_told_once() -> None:
    """What both readings agree on is news then, and later only what came since."""
    more = FULL.table(dropped_in=5007)

    shown = played((0, FULL), (5, more), (10, more), (15, more.table(dropped_in=5009)), (20, FULL))
    *_, last = played((0, FULL), (5, more), (10, more), (15, more), (16 + SAID_FOR, more))

    assert [found.keys() for found in shown[:3]] == [set(), set(), {"clear-received"}]
    assert last == {}


def test_what_would_leave_is_told_where_it_lasts() -> None:
    """As with named peers: what ends within seconds was a repair."""
    steps = [(float(10 * n), FULL.table(dropped_out=5000 + n)) for n in range(6)]

    shown = played(*steps)

    assert [list(found) for found in shown[:4]] == [[], [], [], []]
    assert "the guard dropped 1 clear packet that this VM sent" in (
        shown[5]["clear-prevented"].message
    )


@pytest.mark.parametrize("key", ["clear_in", "clear_out", "misplaced"])
def test_who_is_named_is_told_by_name_only(key: str) -> None:
    """Also one that was forgotten in between and is counted again from 0."""
    total = "dropped_in" if key == "clear_in" else "dropped_out"
    vm = healthy_vm()
    peers = [ClearPeer(ip_address(f"10.0.0.{last}"), 5, 500, 60) for last in (9, 66)]
    again = replace(peers[1], packets=3)

    *_, last = played(
        (0, vm.table(**{key: tuple(peers), total: 10})),
        (10, vm.table(**{key: (replace(peers[0], packets=9), again), total: 17})),
    )

    assert last == {}


def test_a_table_that_was_replaced_counts_from_0() -> None:
    """What it has counted since then is news, named or not."""
    sets = {"clear_in": FORGED, "clear_out": FORGED, "dropped_out": PEERS_COUNTED}
    fresh = healthy_vm().table(dropped_in=PEERS_COUNTED + 3, **sets)

    shown = played((0, FULL), (10, fresh), (20, fresh))

    assert "3 clear packets" in shown[2]["clear-received"].message


def test_the_first_reading_is_no_news() -> None:
    """What was dropped before the agent's start is told by the counters only."""
    assert played((0, FULL)) == [{}]
    assert played((0, FULL), (5, FULL.but(guard=None)), (10, FULL))[2] == {}


def test_disguised() -> None:
    """Mapped addresses and source routes have a problem of their own, in both directions."""
    vm = healthy_vm()

    shown = played((0, vm), (10, vm.table(disguised_in=2, dropped_in=2)))
    assert "dropped 2 packets with an IPv4-mapped IPv6" in shown[1]["clear-disguised"].message
    assert list(shown[1]) == ["clear-disguised"]
    shown = played((0, vm), (10, vm.table(disguised_out=1, dropped_out=1)))
    assert list(shown[1]) == ["clear-disguised"]


def test_what_a_liars_sa_would_carry_is_not_clear() -> None:
    """It is dropped and has a problem of its own, which names the peer."""
    vm = healthy_vm()

    for change in ({"tunnelled_in": 2, "dropped_in": 2}, {"tunnelled_out": 1, "dropped_out": 1}):
        shown = played((0, vm), (10, vm.table(**change)))
        assert list(shown[1]) == []
