"""Sets of addresses and of networks, asked in the time of a look-up, however large they are.

A set of addresses is a tuple of (first, last), both included, of one IP version, sorted, and of
which no two overlap or touch.
"""

from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from ipaddress import IPv4Network, IPv6Network

from ipsec_agent.core.model import Address, Network

Range = tuple[int, int]
"""First and last address."""

Ranges = tuple[Range, ...]

BITS = {4: 32, 6: 128}
"""Bits of an address, by IP version."""


def range_of(network: Network) -> Range:
    """First and last address of a network."""
    first = int(network.network_address)
    # Four times as fast as its broadcast_address, which is made again for each network.
    return first, first | ((1 << (BITS[network.version] - network.prefixlen)) - 1)


def joined(ranges: Iterable[Range]) -> Ranges:
    """The union of ranges that may overlap, touch and come in any order."""
    merged: list[Range] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def of_networks(networks: Iterable[Network], version: int) -> Ranges:
    """The addresses of those networks that are of an IP version."""
    return joined(range_of(network) for network in networks if network.version == version)


def complement(ranges: Ranges, version: int) -> Ranges:
    """All addresses of an IP version that a set does not hold."""
    return tuple(_gaps(ranges, version))


def _gaps(ranges: Ranges, version: int) -> Iterator[Range]:
    start = 0
    for first, last in ranges:
        if start < first:
            yield start, first - 1
        start = last + 1
    if start < 2 ** BITS[version]:
        yield start, 2 ** BITS[version] - 1


def holds(ranges: Ranges, wanted: Range) -> bool:
    """Whether a set holds all of a range."""
    place = bisect_right(ranges, (wanted[0], 2 ** BITS[6]))
    return place > 0 and wanted[1] <= ranges[place - 1][1]


def networks_of(ranges: Ranges, version: int) -> Iterator[Network]:
    """The fewest networks that are this set, as ipaddress.collapse_addresses finds them."""
    kind, bits = (IPv4Network if version == 4 else IPv6Network), BITS[version]  # noqa: PLR2004
    for first, last in ranges:
        start = first
        while start <= last:
            # As wide as the zeros at its end, and the room that is left, allow.
            zeros = (start & -start or 1 << bits).bit_length()
            width = min(zeros, (last - start + 1).bit_length()) - 1
            yield kind((start, bits - width))
            start += 1 << width


def meets(ranges: Ranges, wanted: Range) -> bool:
    """Whether a set holds any of a range."""
    place = bisect_left(ranges, wanted[0], key=lambda one: one[1])
    return place < len(ranges) and ranges[place][0] <= wanted[1]


class Subnets:
    """Networks, asked which of them hold an address or a network, as a router finds its route."""

    def __init__(self, networks: Iterable[Network]) -> None:
        """Sort the networks by version, length and bits of the prefix."""
        by_length: dict[int, dict[int, dict[int, Network]]] = {version: {} for version in BITS}
        for network in networks:
            length, version = network.prefixlen, network.version
            prefix = int(network.network_address) >> (BITS[version] - length)
            by_length[version].setdefault(length, {})[prefix] = network
        self._by_length = {
            version: [
                (length, BITS[version] - length, networks)
                for length, networks in sorted(found.items(), reverse=True)
            ]
            for version, found in by_length.items()
        }

    def narrowest(self, address: Address) -> Network | None:
        """The narrowest network that holds an address, None without one."""
        version = address.version
        return next(self._holding(version, int(address), BITS[version]), None)

    def around(self, network: Network) -> Iterator[Network]:
        """The networks that hold all of one, the narrowest first."""
        return self._holding(network.version, int(network.network_address), network.prefixlen)

    def one_holds(self, wanted: Sequence[Network]) -> bool:
        """Whether one of the networks holds all of these; of none each does."""
        if len(wanted) == 1:
            return next(self.around(wanted[0]), None) is not None
        return not wanted or bool(set.intersection(*(set(self.around(one)) for one in wanted)))

    def _holding(self, version: int, first: int, most: int) -> Iterator[Network]:
        for length, shift, networks in self._by_length[version]:
            if length <= most and (found := networks.get(first >> shift)) is not None:
                yield found
