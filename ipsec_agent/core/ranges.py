"""Sets of addresses as integer ranges: joined, complemented, and asked, in n log n.

A set is a tuple of (first, last), both included, of one IP version, sorted, and of which no two
overlap or touch.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator

from ipsec_agent.core.model import Network

Range = tuple[int, int]
"""First and last address."""

Ranges = tuple[Range, ...]

BITS = {4: 32, 6: 128}
"""Bits of an address, by IP version."""


def range_of(network: Network) -> Range:
    """First and last address of a network."""
    return int(network.network_address), int(network.broadcast_address)


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
