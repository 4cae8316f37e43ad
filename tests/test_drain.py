"""A drain in time: what it waits for, what ends the wait, and that each step is bounded."""

import asyncio
import os
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent import drain
from ipsec_agent.core.drain import Job, Phase
from ipsec_agent.drain import Drainer, Order
from ipsec_agent.errors import AgentError, StartError
from ipsec_agent.host.drain_file import DrainFile
from ipsec_agent.host.jobs import Places

NO_MONIT = 1
"""A port on which nobody listens."""


class Told:
    """Keeps what an operator is told."""

    def __init__(self) -> None:
        self.waited: list[tuple[Job, ...]] = []
        self.said: list[tuple[str, tuple[Job, ...]]] = []
        self.warned: list[AgentError] = []
        self._looked = asyncio.Event()

    def waits(self, jobs: tuple[Job, ...], left: float) -> None:
        """It waits."""
        assert left >= 0
        self.waited.append(jobs)
        self._looked.set()

    async def until(self, *jobs: Job) -> None:
        """Return once it waits for these jobs."""
        async with asyncio.timeout(20):
            while self.waited[-1:] != [jobs]:
                self._looked.clear()
                await self._looked.wait()

    def says(self, event: str, jobs: tuple[Job, ...] = ()) -> None:
        """Something has happened."""
        self.said.append((event, jobs))

    def warns(self, error: AgentError) -> None:
        """Something failed."""
        self.warned.append(error)


@pytest.fixture
def told() -> Told:
    """What an operator is told."""
    return Told()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A job that runs."""
    path = tmp_path / "vcap/sys/run/nfs/nfs.pid"
    path.parent.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as process:
        path.write_text(f"{process.pid}\n")
        yield process
        process.kill()


@pytest.fixture(autouse=True)
def _charon(monkeypatch: pytest.MonkeyPatch) -> None:
    """A charon seems to run; the real one is in tests/charon."""
    monkeypatch.setattr(drain, "_has_charon", lambda _order: True)
    monkeypatch.setattr(drain, "TICK", 0.05)


def order(place: Path, timeout: float = 60.0) -> Order:
    """A drain of this place."""
    return Order(
        run_dir=place,
        vici_socket=place / "charon.vici",
        socket=str(place / "control.sock"),
        timeout=timeout,
        places=Places(place / "vcap", NO_MONIT),
    )


ENDED = "IPsec has ended; the guard stays"


async def test_the_last_job_exits(tmp_path: Path, told: Told, job: subprocess.Popen[bytes]) -> None:
    """IPsec ends then, and not before; its file says each."""
    nfs, file = Job("nfs", job.pid), DrainFile(tmp_path)
    running = asyncio.create_task(Drainer(order(tmp_path), told).run())
    await told.until(nfs)
    found = file.read()
    assert found is not None
    assert (found.phase, found.waits, found.pid) == (Phase.WAITING, (nfs,), os.getpid())
    assert 59 <= found.deadline - found.since <= 61
    await asyncio.sleep(0.3)
    assert told.said == []
    job.kill()
    async with asyncio.timeout(20):
        await running

    assert told.said == [("charon ends", ()), (ENDED, ())]
    found = file.read()
    assert found is not None
    assert (found.phase, found.waits) == (Phase.ENDED, ())


async def test_patience(tmp_path: Path, told: Told, job: subprocess.Popen[bytes]) -> None:
    """A job that never ends is named, once its time is over."""
    began = time.monotonic()
    await Drainer(order(tmp_path, 1.0), told).run()

    assert 1 <= time.monotonic() - began < 20
    nfs = (Job("nfs", job.pid),)
    assert told.said == [("charon ends", ()), (ENDED, nfs)]
    found = DrainFile(tmp_path).read()
    assert found is not None
    assert found.waits == nfs


@pytest.mark.parametrize("takes", [0.0, 0.3])
async def test_nobody_is_named_before_the_look(
    takes: float,
    tmp_path: Path,
    told: Told,
    job: subprocess.Popen[bytes],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Without any patience those who run are named all the same, on a slow machine, too."""
    one = Drainer(order(tmp_path, 0.0), told)
    look = one._jobs.look

    def slowly() -> tuple[Job, ...]:
        time.sleep(takes)
        return look()

    monkeypatch.setattr(one._jobs, "look", slowly)
    await one.run()

    assert told.said[-1] == (ENDED, (Job("nfs", job.pid),))


async def test_signals(tmp_path: Path, told: Told, job: subprocess.Popen[bytes]) -> None:
    """The first is answered, the second ends the wait at once."""
    running = asyncio.create_task(Drainer(order(tmp_path), told).run())
    await told.until(Job("nfs", job.pid))
    os.kill(os.getpid(), signal.SIGTERM)
    await asyncio.sleep(0.3)
    assert told.said == [("a second signal (Ctrl-C) ends the wait now", ())]
    assert not running.done()
    os.kill(os.getpid(), signal.SIGINT)
    async with asyncio.timeout(20):
        await running

    assert told.said[-1] == (ENDED, (Job("nfs", job.pid),))


async def test_given_up(tmp_path: Path, told: Told, job: subprocess.Popen[bytes]) -> None:
    """SIGHUP, as systemd sends it before an agent starts: IPsec stays, and the file goes."""
    running = asyncio.create_task(Drainer(order(tmp_path), told).run())
    await told.until(Job("nfs", job.pid))
    os.kill(os.getpid(), signal.SIGHUP)
    async with asyncio.timeout(20):
        await running

    assert told.said == [
        ("the wait was given up; IPsec goes on", (Job("nfs", job.pid),)),
    ]
    assert not DrainFile(tmp_path).path.exists()


async def test_keep(tmp_path: Path, told: Told) -> None:
    """It only waits."""
    await Drainer(replace(order(tmp_path), keep=True), told).run()

    assert told.said == [("the wait is over; IPsec goes on", ())]
    assert not DrainFile(tmp_path).path.exists()


async def test_scripts_follow_the_jobs(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where BOSH has jobs, their post-stop scripts may begin a moment after the last one's end."""
    monkeypatch.setattr(drain, "QUIET", 0.5)
    (tmp_path / "vcap/jobs").mkdir(parents=True)
    began = time.monotonic()
    await Drainer(order(tmp_path), told).run()

    assert 0.5 <= time.monotonic() - began < 20
    assert told.said[-1] == (ENDED, ())


async def test_a_look_that_hangs(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A process that hangs in the kernel may hold a look for ever, but not the drain."""
    held = threading.Event()
    one = Drainer(order(tmp_path, 0.5), told)
    monkeypatch.setattr(one._jobs, "look", held.wait)
    monkeypatch.setattr(drain, "FIRST_LOOK", 0.1)
    began = time.monotonic()
    try:
        await one.run()
    finally:
        held.set()

    assert 0.5 <= time.monotonic() - began < 20
    assert told.said[-1] == (ENDED, ())


async def test_nothing_to_end(
    tmp_path: Path, told: Told, job: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without charon and agent nobody is waited for any longer, nor told that IPsec has ended."""
    monkeypatch.setattr(drain, "_has_charon", lambda _order: False)
    monkeypatch.setattr(drain, "GONE", 0.3)
    async with asyncio.timeout(20):
        await Drainer(order(tmp_path), told).run()

    said = f"neither agent nor charon runs in {tmp_path}; the guard stays"
    assert told.said == [(said, (Job("nfs", job.pid),))]


async def test_a_full_disk(tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody can read what the drain does, which is told once; IPsec ends all the same."""

    def fails(*_arguments: object) -> None:
        raise StartError("cannot write: No space left on device")

    monkeypatch.setattr(DrainFile, "write", fails)
    monkeypatch.setattr(drain, "QUIET", 0.3)
    (tmp_path / "vcap/jobs").mkdir(parents=True)
    await Drainer(order(tmp_path), told).run()

    assert [one.message for one in told.warned] == ["cannot write: No space left on device"]
    assert told.said[-1] == (ENDED, ())


async def test_an_end_that_fails(
    tmp_path: Path, told: Told, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A charon that does not end is an error, and the file does not keep an agent from it."""

    async def fails(*_arguments: object) -> bool:
        raise AgentError("charon (pid 1) does not end")

    monkeypatch.setattr(drain, "end_charon", fails)
    with pytest.raises(AgentError, match="does not end"):
        await Drainer(order(tmp_path), told).run()

    assert not DrainFile(tmp_path).path.exists()
