"""Who begins, and when: every pair gets its initiator, nobody waits for ever, the bound holds."""

from ipaddress import IPv4Address, IPv6Address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.model import Address, Pair
from ipsec_agent.core.pacing import (
    BEGUN_AT_ONCE,
    GRACE,
    SPREAD,
    TURN,
    begins,
    due,
    grace,
    in_order,
    span,
)

ADDRESSES = st.integers(0, 2**32 - 1).map(IPv4Address) | st.integers(0, 2**128 - 1).map(IPv6Address)
OWN = IPv4Address("10.0.7.7")
PEERS = st.sets(st.integers(0, 4000).map(lambda n: IPv4Address("10.0.0.0") + n), max_size=300)


@given(ADDRESSES, ADDRESSES)
def test_every_pair_has_one_initiator(one: Address, other: Address) -> None:
    """Both ends agree who it is, without having asked each other; that end waits for nobody."""
    if one == other or one.version != other.version:
        return
    assert begins((one, other)) != begins((other, one))
    assert min(grace((one, other)), grace((other, one))) == 0
    assert GRACE <= max(grace((one, other)), grace((other, one))) < GRACE + SPREAD


def test_one_lot_for_two(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pairs of which by chance the lot is the same have an order, whatever their versions."""
    monkeypatch.setattr("ipsec_agent.core.pacing.lot", lambda _: 0.5)
    six = IPv6Address("fd00::7"), IPv6Address("fd00::8")
    pairs: list[Pair] = [(OWN, OWN + 1), (OWN, OWN + 3), six]
    assert len({begins(pair) for pair in pairs}) == 1
    assert in_order(pairs) == in_order(reversed(pairs))


def test_each_begins_with_half_of_its_peers() -> None:
    """No VM of a subnet has to begin with all of them, wherever its address is."""
    subnet = [IPv4Address("10.0.0.0") + n for n in range(256)]
    for own in subnet:
        assert 127 <= sum(begins((own, peer)) for peer in subnet if peer != own) <= 128


@given(PEERS, st.integers(0, 2 * BEGUN_AT_ONCE), st.floats(-100, 100))
def test_the_bound_holds(peers: set[Address], busy: int, elapsed: float) -> None:
    """Never more at once; one that is to begin comes before one that only may."""
    pairs = {(OWN, peer) for peer in peers}
    chosen = due(pairs, busy=busy, elapsed=elapsed)

    assert set(chosen) <= pairs
    assert len(chosen) == len(set(chosen)) <= max(0, BEGUN_AT_ONCE - busy)
    ours = [begins(pair) for pair in chosen]
    assert ours == sorted(ours, reverse=True)
    ready = {pair for pair in pairs if begins(pair) or elapsed >= grace(pair) or elapsed < 0}
    assert len(chosen) == min(len(ready), max(0, BEGUN_AT_ONCE - busy))


def test_a_larger_fleet_begins_more_at_once() -> None:
    """One in 16 of those that wait, so that 10,000 do not wait ten times as long as 1,000."""
    pairs = [(OWN, IPv4Address("10.0.0.0") + n) for n in range(1600)]

    assert len(due(pairs[:256], busy=0, elapsed=100.0)) == BEGUN_AT_ONCE
    assert len(due(pairs, busy=0, elapsed=100.0)) == 100
    assert len(due(pairs[40:], busy=40, elapsed=100.0)) == 60
    assert len(due(pairs[100:], busy=100, elapsed=100.0)) == 0


def test_not_all_begin_with_the_same_peer() -> None:
    """What begins at once in 256 VMs is spread over them: no peer is asked by a tenth of all."""
    subnet: list[Address] = [IPv4Address("10.0.0.0") + n for n in range(256)]
    asked = dict.fromkeys(subnet, 0)
    for own in subnet:
        for _, peer in in_order((own, peer) for peer in subnet if peer != own)[:BEGUN_AT_ONCE]:
            asked[peer] += 1
    assert max(asked.values()) < 3 * BEGUN_AT_ONCE


def rounds(peers: set[Address], dead: set[Address]) -> dict[Pair, float]:
    """When each pair begins at the latest: a pass each TURN, as where no event tells of anything.

    The living have their SA by the next pass; the dead, and those without an agent, begin nothing.
    """
    begun: dict[Pair, float] = {}
    now, limit = 0.0, GRACE + SPREAD + span(len(peers)) + 2 * TURN
    while len(begun) < len(peers) and now <= limit:
        busy = sum(now - at < TURN for pair, at in begun.items() if pair[1] in dead)
        waiting = [(OWN, peer) for peer in peers if (OWN, peer) not in begun]
        begun |= dict.fromkeys(due(waiting, busy=busy, elapsed=now), now)
        now += TURN
    return begun


@given(st.data(), PEERS)
def test_nobody_waits_for_ever(data: st.DataObject, peers: set[Address]) -> None:
    """Each pair begins in a bounded time although the other end never does and some are dead."""
    dead = data.draw(st.sets(st.sampled_from(sorted(peers)))) if peers else set()
    begun = rounds(peers - {OWN}, dead)

    assert {peer for _, peer in begun} == peers - {OWN}
    assert max(begun.values(), default=0) <= GRACE + SPREAD + span(len(peers)) + 2 * TURN


@given(PEERS)
def test_a_clock_set_back(peers: set[Address]) -> None:
    """It has nobody wait for the hour by which it was set back."""
    pairs = [(OWN, peer) for peer in peers]
    assert len(due(pairs, busy=0, elapsed=-3600.0)) == min(len(pairs), BEGUN_AT_ONCE)
