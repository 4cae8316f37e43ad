"""The search for the largest packet that comes through."""

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.path_mtu import SMALLEST, PathMtu, begun, found


def searched(link: int, path: int, *, told: bool = False) -> tuple[PathMtu, list[int]]:
    """What a search finds, and the sizes that it lost.

    Args:
        link: the largest that this VM sends.
        path: the largest that comes through.
        told: the network tells that when the first larger packet is lost.
    """
    search = begun(link + 1)
    lost: list[int] = []
    for _ in range(64):
        size = search.size
        if size is None:
            return found(search), lost
        if size <= path:
            search = search.answered(size)
        else:
            lost.append(size)
            search = search.lost(size)
            if told:
                search = search.too_large(path + 1)
    raise AssertionError(search)


@given(st.integers(SMALLEST, 9000), st.integers(SMALLEST, 65_000))
def test_a_black_hole(path: int, link: int) -> None:
    """The largest packet is found to the byte, in few steps, since each loss costs seconds."""
    result, lost = searched(link, min(path, link))

    assert result == PathMtu(min(path, link), link)
    assert result.black_hole == (path < link)
    assert len(lost) <= 17


def test_all_is_well() -> None:
    """One packet of the size of the link tells it."""
    assert searched(1466, 9000) == (PathMtu(1466, 1466), [])


def test_the_network_tells() -> None:
    """Where a router says what it takes, that is no black hole."""
    result, lost = searched(1466, 1366, told=True)

    assert (result, lost) == (PathMtu(1366, 1366), [1466])
    assert not result.black_hole
