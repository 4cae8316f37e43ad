"""The VMs that the guard's tests of the kernel and of real ESP share."""

from collections.abc import Iterator

import pytest

from tests.kernel.guard_lab import B, Capture, namespaces


@pytest.fixture
def guarded() -> Iterator[None]:
    """Two VMs and a container, fresh for each test (tests/kernel/guard_lab.py)."""
    with namespaces():
        yield


@pytest.fixture
def wire(guarded: None) -> Iterator[Capture]:
    """What arrives at B's link, guard or no guard."""
    with Capture(B, "b0") as capture:
        yield capture
