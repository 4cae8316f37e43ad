"""Ranges of addresses are what the sets they stand for are."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.ranges import BITS, complement, holds, joined

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
