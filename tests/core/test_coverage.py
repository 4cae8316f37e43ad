"""What covers a pair is what a walk through all children would find."""

from ipaddress import IPv4Address, IPv4Network

from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.coverage import Coverage
from ipsec_agent.core.drift import takes_trapped
from ipsec_agent.core.model import (
    Action,
    Address,
    Child,
    Connection,
    Desired,
    DesiredPolicy,
    Direction,
    Network,
    PolicySelector,
    TrafficSelector,
)
from ipsec_agent.core.observed import Policy
from tests.examples import examples

addresses = st.integers(0, 7).map(lambda n: IPv4Address((10 << 24) + n))
networks = st.builds(
    lambda n, length: IPv4Network(((10 << 24) + n, length), strict=False),
    st.integers(0, 7),
    st.integers(29, 32),
)
pairs = st.tuples(networks, networks)
actions = st.sampled_from(Action)
some = st.lists(networks, max_size=3).map(tuple)


def wanted(them: list[tuple[tuple[Network, Network], Action]]) -> Desired:
    """Connections of one child each, with the policies that lead out and in."""
    connections = tuple(
        Connection(
            f"{number}",
            action,
            far,
            (Child(f"{number}", action, TrafficSelector(near), TrafficSelector(far)),),
        )
        for number, ((near, far), action) in enumerate(them)
    )
    policies = tuple(
        DesiredPolicy(PolicySelector(direction, *ends), action, f"{number}", f"{number}")
        for number, ((near, far), action) in enumerate(them)
        for direction, ends in ((Direction.OUT, (near, far)), (Direction.IN, (far, near)))
    )
    return Desired(connections=connections, policies=policies)


wishes = st.lists(st.tuples(pairs, actions), max_size=8)


@settings(max_examples=examples(300))
@given(wishes, addresses, addresses)
def test_narrowest(
    them: list[tuple[tuple[Network, Network], Action]], own: Address, peer: Address
) -> None:
    """Of the children that hold both addresses it is one with the narrowest remote network."""
    found = Coverage(wanted(them), Action.ENCRYPT).narrowest(own, peer)
    holding = [
        (near, far)
        for (near, far), action in them
        if action is Action.ENCRYPT and own in near and peer in far
    ]

    assert (found is None) is (not holding)
    if found is not None:
        ends = found.child.local.network, found.child.remote.network
        assert ends in holding
        assert ends[1].prefixlen == max(far.prefixlen for _, far in holding)


@settings(max_examples=examples(300))
@given(wishes, some, some, addresses)
def test_covers(
    them: list[tuple[tuple[Network, Network], Action]],
    local: tuple[IPv4Network, ...],
    remote: tuple[IPv4Network, ...],
    peer: Address,
) -> None:
    """One child must hold all selectors of both sides."""
    coverage = Coverage(wanted(them), Action.PASS)
    passing = [ends for ends, action in them if action is Action.PASS]

    assert coverage.leads_to(peer) == any(peer in far for _, far in passing)
    assert coverage.covers(local, remote) == any(
        all(one.subnet_of(near) for one in local)  # type: ignore[arg-type] # all are IPv4
        and all(one.subnet_of(far) for one in remote)  # type: ignore[arg-type] # likewise
        for near, far in passing
    )


@settings(max_examples=examples(300))
@given(wishes, pairs, st.sampled_from(Direction))
def test_takes_trapped(
    them: list[tuple[tuple[Network, Network], Action]],
    ends: tuple[Network, Network],
    direction: Direction,
) -> None:
    """A policy takes what a trap of its direction selects where both its sides overlap."""
    wish = wanted(them)
    policy = Policy(PolicySelector(direction, *ends), 1, esp=False, blocks=False)

    assert takes_trapped(policy, wish) == any(
        trap.action is Action.ENCRYPT
        and trap.selector.direction is direction
        and trap.selector.source.overlaps(ends[0])
        and trap.selector.destination.overlaps(ends[1])
        for trap in wish.policies
    )
