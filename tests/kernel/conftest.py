"""A network namespace of its own for each test that asks."""

import ctypes
import os
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

CLONE_NEWNET = 0x40000000

Run = Callable[..., str]


def run(*command: str, stdin: str = "") -> str:
    """The output of a program in this thread's network namespace."""
    return subprocess.run(
        command, input=stdin, check=True, capture_output=True, text=True, timeout=30
    ).stdout


@pytest.fixture
def namespace() -> Iterator[Run]:
    """A fresh namespace for this thread, with the loopback up; gives `run`.

    It has no name, so that the kernel removes it with its last socket, whatever happens. What the
    test starts lives in it, too: programs, new threads, sockets.
    """
    libc = ctypes.CDLL(None, use_errno=True)
    home = Path("/proc/thread-self/ns/net").open("rb")  # noqa: SIM115 - closed below
    with home:
        if libc.unshare(CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), "unshare: these tests need root")
        try:
            run("ip", "link", "set", "lo", "up")
            yield run
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                os.abort()  # the other tests must not run in a namespace that is not theirs
