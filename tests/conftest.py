"""The VMs that the guard's tests of the kernel and of real ESP share; and the slowest linter."""

from collections.abc import Iterator

import pytest
from hypothesis import settings

from ipsec_agent.core.flow_rules import REMOVAL
from tests.examples import WHOLE
from tests.kernel.guard_lab import A4, B4, A, B, Capture, index, ipv4, namespaces, run, send_below

# How long an example takes tells of the machine and of what runs beside.
settings.register_profile("quarter", deadline=None, max_examples=WHOLE // 4)
settings.register_profile("long", settings.get_profile("quarter"), max_examples=WHOLE)
settings.load_profile("quarter")

PLANTED = ipv4(A4, B4, 99, b"planted by the judge")


@pytest.fixture
def guarded() -> Iterator[None]:
    """Two VMs and a container, fresh for each test (tests/kernel/guard_lab.py)."""
    with namespaces():
        yield


@pytest.fixture
def wire(guarded: None) -> Iterator[Capture]:
    """What arrives at B's link, guard or no guard; it must have missed nothing."""
    uplink = index(A, "a0")
    with Capture(B, "b0") as capture:
        yield capture
        assert capture.lost() == 0, "the capture lost packets: it is no judge"
        send_below(A, uplink, PLANTED)
        planted = capture.matching(lambda seen: seen.raw == PLANTED, 1)
        assert planted, "it missed the planted packet"


@pytest.fixture
def below(wire: Capture) -> Iterator[Capture]:
    """The same for the table beside flowtables, which would hold what the judge plants, too."""
    yield wire
    run("nft", "-f", "-", ns=A, text=REMOVAL)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """mypy, which takes as long as many tests, comes first: others run beside it."""
    items.sort(key=lambda item: item.name != "test_mypy")


def pytest_make_parametrize_id(val: object, argname: str) -> str | None:
    """A PEM, which each process makes for itself, is no part of a test's name."""
    return argname if isinstance(val, str) and "-----BEGIN " in val else None
