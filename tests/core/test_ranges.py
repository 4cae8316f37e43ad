"""Ranges of addresses are what the sets they stand for are."""

import itertools
from ipaddress import IPv4Network, IPv6Address, IPv6Network, collapse_addresses

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.model import Network
from ipsec_agent.core.ranges import (
    BITS,
    Subnets,
    complement,
    holds,
    joined,
    meets,
    networks_of,
    of_networks,
)

LAST = 2 ** BITS[4] - 1
# Both ends of the address space and a corner in which ranges overlap and touch.
ends = st.integers(0, 40) | st.integers(LAST - 5, LAST)
ranges = st.tuples(ends, ends).map(lambda pair: (min(pair), max(pair)))
some = st.lists(ranges, max_size=6)
PROBES = (*range(45), *range(LAST - 8, LAST + 1))


@given(some)
def test_joined_and_complement(them: list[tuple[int, int]]) -> None:
    """Each address is in the union or in its complement, as the ranges say; both are tidy."""
    union = joined(them)
    rest = complement(union, 4)

    for probe in PROBES:
        expected = any(first <= probe <= last for first, last in them)
        assert any(first <= probe <= last for first, last in union) == expected
        assert any(first <= probe <= last for first, last in rest) != expected
    for tidy in (union, rest):
        assert all(first <= last for first, last in tidy)
        assert all(end + 1 < start for (_, end), (start, _) in itertools.pairwise(tidy))


@given(some, ranges)
def test_holds(them: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    """A union holds a range if it leaves nothing of it."""
    union = joined(them)

    assert holds(union, wanted) == (joined((*union, wanted)) == union)


@given(some, ranges)
def test_meets(them: list[tuple[int, int]], wanted: tuple[int, int]) -> None:
    """A union meets a range if it holds one of its addresses."""
    union = joined(them)
    shared = any(first <= wanted[1] and wanted[0] <= last for first, last in them)

    assert meets(union, wanted) == shared


networks = st.builds(
    lambda n, length: IPv4Network((n, length), strict=False),
    st.integers(0, 63) | st.integers(LAST - 7, LAST),
    st.sampled_from([0, 1, *range(24, 33)]),
)


@given(st.lists(networks, max_size=6))
def test_networks_of(them: list[IPv4Network]) -> None:
    """A union is written as the standard library writes it."""
    assert [*networks_of(of_networks(them, 4), 4)] == [*collapse_addresses(them)]


@given(st.lists(networks, max_size=6), networks)
def test_subnets(them: list[IPv4Network], wanted: IPv4Network) -> None:
    """The networks that hold an address or another network, the narrowest first."""
    mixed: list[Network] = [*them, IPv6Network("::/0")]
    address = wanted.network_address
    around = sorted({it for it in them if wanted.subnet_of(it)}, key=lambda it: -it.prefixlen)

    assert [*Subnets(mixed).around(wanted)] == around
    holding = {it for it in them if address in it}
    assert Subnets(mixed).narrowest(address) == max(
        holding, key=lambda it: it.prefixlen, default=None
    )
    assert Subnets(mixed).narrowest(IPv6Address("::1")) == IPv6Network("::/0")
