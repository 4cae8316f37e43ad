"""What is opened for a moment while no descriptor is left: no agent ends of that."""

import asyncio
import contextlib
import errno
import os
import resource
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipsec_agent.core.drain import Drain, Phase
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import KernelError, StartError
from ipsec_agent.host import exhausted as exhaustion
from ipsec_agent.host import nft, process, systemd
from ipsec_agent.host.birth import began
from ipsec_agent.host.capture import Capture
from ipsec_agent.host.child import Child
from ipsec_agent.host.drain_file import _end
from ipsec_agent.host.echo import Echo
from ipsec_agent.host.exhausted import MORE_FILES, is_exhausted, refused, remedy
from ipsec_agent.host.peers import probe
from ipsec_agent.host.route_records import read_network, source_for

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
        read_network,
        lambda: process._listener(Path("/none")),
        lambda: process._pinned(CharonProcess(os.getpid(), 0.0, 0, ours=True)).__enter__(),
    ],
    ids=["echo", "capture", "text for nft", "route", "addresses", "listener", "charon"],
)
def test_it_is_told(opens: Callable[[], object]) -> None:
    """As an error that a pass and a proof understand."""
    with exhausted(), pytest.raises(KernelError, match="Too many open files") as found:
        opens()
    assert found.value.hint == MORE_FILES
    assert found.value.code == errno.EMFILE


@pytest.mark.parametrize(
    ("code", "hint"),
    [
        (errno.EMFILE, "LimitNOFILE"),
        (errno.ENFILE, "fs.file-max"),
        (errno.ENOBUFS, "memory for sockets"),
        (errno.ENOMEM, "memory is short"),
        (errno.EPERM, "otherwise"),
    ],
)
def test_one_hint_for_each_error(code: int, hint: str) -> None:
    """What is short is named; any other error has the hint of whoever met it."""
    error = OSError(code, os.strerror(code))

    assert hint in remedy(error, "otherwise")
    assert is_exhausted(error) == (code != errno.EPERM)
    assert refused("cannot do it", error).message == f"cannot do it: {os.strerror(code)}"


def test_the_hint_is_in_one_place() -> None:
    """Nothing else names the limit, or tells these errors from others by itself."""
    modules = Path(exhaustion.__file__).parents[1].rglob("*.py")
    texts = {one.name: one.read_text() for one in modules}

    assert [one for one in texts if "LimitNOFILE" in texts[one]] == ["exhausted.py"]
    assert [one for one in texts if "EMFILE" in texts[one]] == ["exhausted.py"]


def test_it_is_left_out(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """What can be done without is not done, or in another way."""
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "manager"))
    with exhausted():
        probe(PEERS)
        systemd.notify("WATCHDOG=1")
        assert Child(lambda: 7).result() == 7


async def test_a_process_that_cannot_be_watched(monkeypatch: pytest.MonkeyPatch) -> None:
    """Is told; only for a descriptor it is waited."""

    def pidfd(_pid: int) -> int:
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr(os, "pidfd_open", pidfd)
    async with asyncio.timeout(10):
        with pytest.raises(KernelError, match="cannot watch charon") as found:
            await process.watch_death(os.getpid(), lambda: None)
    assert found.value.code == errno.ENOSYS
    assert "pidfd_open" in found.value.hint


async def test_a_thread_has_the_pid_now() -> None:
    """The process has ended: nothing is wrong with the kernel, and charon needs no end."""
    leave, woken = threading.Event(), list[int]()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    pid = thread.native_id or 0
    try:
        async with asyncio.timeout(10):
            assert await process.watch_death(pid, lambda: woken.append(pid)) is None
            await process.stop_charon(CharonProcess(pid, 1.0, 0, ours=True), 1.0)
    finally:
        leave.set()
        thread.join()
    assert woken == [pid]


async def test_a_drain_that_cannot_be_ended() -> None:
    """Is not taken for one that has ended."""
    with subprocess.Popen(  # noqa: ASYNC220 - at once
        [sys.executable, "-c", "input()"], stdin=subprocess.PIPE
    ) as child:
        drain = Drain(child.pid, began(child.pid) or 0, Phase.WAITING, 1.0, 2.0)
        with exhausted(), pytest.raises(StartError, match="Too many open files") as found:
            await _end(drain)
        assert found.value.hint == MORE_FILES
        child.kill()


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
