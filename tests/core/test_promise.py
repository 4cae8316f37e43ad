"""The promise: symmetric, and no-ipsec always wins."""

from ipaddress import IPv4Address, IPv4Network, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.model import Action
from ipsec_agent.core.promise import Promise

# A small corner of the address space, so that random subnets overlap and nest often.
addresses = st.integers(0, 255).map(lambda n: IPv4Address((10 << 24) + n))
networks = st.builds(
    lambda n, length: IPv4Network(((10 << 24) + n, length), strict=False),
    st.integers(0, 255),
    st.integers(24, 32),
)
promises = st.builds(
    Promise, st.lists(networks, max_size=4).map(tuple), st.lists(networks, max_size=4).map(tuple)
)


@given(promises, addresses, addresses)
def test_symmetric(lists: Promise, one: IPv4Address, other: IPv4Address) -> None:
    """What holds from one VM to another holds back."""
    assert lists.encrypts(one, other) == lists.encrypts(other, one)
    assert lists.flow(one, other).action == lists.flow(other, one).action


@given(promises, addresses, addresses)
def test_literal(lists: Promise, one: IPv4Address, other: IPv4Address) -> None:
    """Both in some ipsec subnet, neither in any no-ipsec subnet, taken literally."""
    expected = all(
        any(address in network for network in lists.ipsec)
        and not any(address in network for network in lists.no_ipsec)
        for address in (one, other)
    )

    assert expected == lists.encrypts(one, other)
    assert expected == (lists.flow(one, other).action is Action.ENCRYPT)


@given(promises)
def test_covered_literally(lists: Promise) -> None:
    """Covered is a subnet of which each single address is in some no-ipsec subnet."""
    expected = tuple(
        network
        for network in lists.ipsec
        if all(any(address in exempt for exempt in lists.no_ipsec) for address in network)
    )

    assert expected == lists.covered


def test_no_ipsec_wins_over_a_narrower_ipsec_subnet() -> None:
    """An ipsec /32 inside a no-ipsec /24 stays clear."""
    lists = Promise(
        (ip_network("10.0.1.7/32"), ip_network("10.0.0.0/16")), (ip_network("10.0.1.0/24"),)
    )

    flow = lists.flow(ip_address("10.0.1.7"), ip_address("10.0.2.1"))

    assert Action.PASS is flow.action
    assert flow.because == "10.0.1.7 is in no_ipsec_subnets (10.0.1.0/24)"


def test_covered() -> None:
    """A subnet is covered when several no-ipsec subnets together leave nothing of it."""
    lists = Promise(
        (ip_network("10.0.0.0/24"), ip_network("10.0.0.0/23"), ip_network("fd00::/64")),
        (ip_network("10.0.0.0/25"), ip_network("10.0.0.128/25")),
    )

    assert lists.covered == (ip_network("10.0.0.0/24"),)


def test_neither_list() -> None:
    """An address in neither list speaks clear, and the reason names it."""
    lists = Promise((ip_network("10.0.0.0/16"),), ())

    flow = lists.flow(ip_address("10.0.0.1"), ip_address("192.0.2.1"))

    assert flow.action is Action.PASS
    assert flow.because == "192.0.2.1 is in no ipsec subnet"
