"""The file of a drain: what it says, when that holds, and how a drain is ended."""

import asyncio
import errno
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from msgspec.structs import replace

from ipsec_agent.core.drain import Drain, Job, Phase
from ipsec_agent.errors import StartError
from ipsec_agent.host import drain_file
from ipsec_agent.host.birth import began
from ipsec_agent.host.drain_file import DrainFile


@contextmanager
def program(script: str = "input()") -> Iterator[subprocess.Popen[bytes]]:
    """A program that stands for one that drains."""
    with subprocess.Popen(
        [sys.executable, "-c", f"import signal; print(flush=True); {script}"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as process:
        assert process.stdout
        process.stdout.readline()
        yield process
        process.kill()


def record(pid: int, phase: Phase = Phase.WAITING) -> Drain:
    """What such a program says."""
    return Drain(pid, began(pid) or 0, phase, 100.0, 130.0, (Job("nfs", 12),))


def test_read_what_was_written(tmp_path: Path) -> None:
    """All of it, by root only."""
    file = DrainFile(tmp_path)
    assert file.read() is None
    file.write(record(os.getpid()))

    assert file.read() == record(os.getpid())
    assert file.path.stat().st_mode & 0o777 == 0o600
    file.remove()
    assert file.read() is None
    file.remove()


@pytest.mark.parametrize("phase", Phase)
def test_a_drain_that_died(tmp_path: Path, phase: Phase) -> None:
    """Its word counts no more, but that IPsec has ended; so with a pid that is another's now."""
    file = DrainFile(tmp_path)
    with program() as process:
        told = record(process.pid, phase)
        file.write(replace(told, started=told.started - 1))
        another = file.read()
        file.write(told)
        assert file.read() == told
    for found in (another, file.read()):
        assert (found is not None) == (phase is Phase.ENDED)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"pid": 1}', "\ud800", '{"a":' * 100_000], ids=range(6)
)
def test_another_content(tmp_path: Path, content: str) -> None:
    """It says nothing."""
    file = DrainFile(tmp_path)
    file.path.write_bytes(content.encode(errors="surrogatepass"))

    assert file.read() is None


async def test_a_file_that_cannot_be_read_now(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """That no file can be opened does not mean that there is no drain: its file stays."""
    file = DrainFile(tmp_path)
    file.write(record(os.getpid()))

    def exhausted(path: Path) -> NoReturn:
        raise OSError(errno.EMFILE, os.strerror(errno.EMFILE), str(path))

    monkeypatch.setattr(drain_file, "open_regular", exhausted)
    assert file.read() is None
    with pytest.raises(StartError, match="Too many open files") as refused:
        await file.end()
    assert "ulimit" in refused.value.hint
    assert file.path.exists()


@pytest.mark.parametrize("make", [Path.mkdir, os.mkfifo])
async def test_something_else_in_its_place(tmp_path: Path, make: Callable[[Path], None]) -> None:
    """What no drain has written is none, and keeps no agent from its start."""
    file = DrainFile(tmp_path)
    make(file.path)

    await file.end()


async def test_end(tmp_path: Path) -> None:
    """The program of a drain is told to give up, awaited, and its file goes."""
    file = DrainFile(tmp_path)
    with program() as process:
        file.write(record(process.pid))
        await file.end()
        assert process.wait(5) == -signal.SIGHUP
    assert not file.path.exists()


async def test_end_where_a_thread_has_the_pid_now(tmp_path: Path) -> None:
    """A drain that ended IPsec is over: a thread cannot be pinned, and is nobody to be killed."""
    file, leave = DrainFile(tmp_path), threading.Event()
    thread = threading.Thread(target=leave.wait)
    thread.start()
    try:
        assert thread.native_id
        told = record(thread.native_id, Phase.ENDED)
        file.write(replace(told, started=told.started - 1))
        await file.end()
    finally:
        leave.set()
        thread.join()
    assert not file.path.exists()


async def test_end_spares_a_stranger(tmp_path: Path) -> None:
    """Who has the pid now is not told anything; nor is this program itself."""
    file = DrainFile(tmp_path)
    with program() as process:
        told = record(process.pid, Phase.ENDED)
        file.write(replace(told, started=told.started - 1))
        await file.end()
        await asyncio.sleep(0.1)
        assert process.poll() is None
    assert not file.path.exists()
    file.write(record(os.getpid()))
    await file.end()
    await file.end()


async def test_a_drain_that_does_not_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named, with what to do; its file stays."""
    monkeypatch.setattr(drain_file, "DEADLINE", 0.2)
    file = DrainFile(tmp_path)
    with program("signal.signal(signal.SIGHUP, signal.SIG_IGN); print(flush=True); input()") as it:
        assert it.stdout
        it.stdout.readline()
        file.write(record(it.pid))
        start = time.monotonic()
        with pytest.raises(StartError, match=f"pid {it.pid}"):
            await file.end()
        assert 0.2 <= time.monotonic() - start < 20
        assert file.read() is not None


def test_began() -> None:
    """When a process began; a zombie, or nobody, did not."""
    with program() as process:
        assert (began(os.getpid()) or 0) < (began(process.pid) or 0)
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert began(process.pid) is None
    assert began(process.pid) is None
