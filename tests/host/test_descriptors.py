"""What is opened for a moment while no descriptor is left: no agent ends of that."""

import asyncio
import contextlib
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import KernelError
from ipsec_agent.host import ip_listing, nft, process, systemd
from ipsec_agent.host.capture import Capture
from ipsec_agent.host.child import Child
from ipsec_agent.host.echo import Echo, source_for
from ipsec_agent.host.peers import probe

PEERS = (ip_address("127.0.0.1"), ip_address("::1"))


@contextlib.contextmanager
def exhausted() -> Iterator[None]:
    """Nothing more can be opened within the context."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lowest = os.dup(0)
    os.close(lowest)
    held = []
    resource.setrlimit(resource.RLIMIT_NOFILE, (lowest + 64, hard))
    try:
        with contextlib.suppress(OSError):
            while True:
                held.append(os.dup(0))
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        for one in held:
            os.close(one)


def echo() -> None:
    """Echo requests to a peer."""
    with Echo(PEERS[0], PEERS[0]):
        pass


def capture() -> None:
    """A capture."""
    with Capture(PEERS[0], PEERS[0]):
        pass


def text() -> None:
    """A text for nft."""
    with nft._as_file("table inet x"):
        pass


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root opens raw sockets")


@pytest.mark.parametrize(
    "opens",
    [
        pytest.param(echo, marks=as_root),
        pytest.param(capture, marks=as_root),
        text,
        lambda: source_for(PEERS[0]),
        lambda: ip_listing._ip("address"),
        lambda: process._listener(Path("/none")),
        lambda: process._pinned(CharonProcess(os.getpid(), 0.0, 0, ours=True)).__enter__(),
    ],
    ids=["echo", "capture", "text for nft", "route", "ip", "listener", "charon"],
)
def test_it_is_told(opens: Callable[[], object]) -> None:
    """As an error that a pass and a proof understand."""
    with exhausted(), pytest.raises(KernelError, match="Too many open files") as found:
        opens()
    assert found.value.hint


def test_it_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What can be done without is not done, or in another way."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
    with exhausted():
        probe(PEERS)
        systemd.notify("WATCHDOG=1")
        assert Child(lambda: 7).result() == 7


async def test_a_death_is_seen_later(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process is watched as soon as there is a descriptor."""
    monkeypatch.setattr(process, "DESCRIPTOR_AGAIN", 0.01)
    with subprocess.Popen(  # noqa: ASYNC220 - at once
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as child:
        with exhausted():
            watching = asyncio.create_task(process.watch_death(child.pid, lambda: None))
            await asyncio.sleep(0.05)
            assert not watching.done()
        child.kill()
        async with asyncio.timeout(10):
            assert await watching == -9
