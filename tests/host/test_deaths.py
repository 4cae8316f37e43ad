"""Deaths are remembered with their status; those that the agent asked for are not."""

import asyncio
import os
import signal
import subprocess
import sys

import pytest
from msgspec.structs import replace

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonStartError
from ipsec_agent.host import deaths as module
from ipsec_agent.host.deaths import Deaths, status_of
from ipsec_agent.host.systemd import CHARON_UNIT, UnitState


def charon(pid: int) -> CharonProcess:
    """A charon with this pid."""
    return CharonProcess(pid=pid, started=1.5, memory=0, ours=True)


def child(code: str) -> CharonProcess:
    """A program that nobody waits for but who watches it."""
    program = subprocess.Popen([sys.executable, "-c", code])
    program.returncode = 0
    return charon(program.pid)


def reaped() -> CharonProcess:
    """A program whose end somebody else was told."""
    program = subprocess.Popen([sys.executable, "-c", ""])
    program.wait(20)
    return charon(program.pid)


@pytest.mark.parametrize(
    ("code", "status"),
    [("import os; os.kill(os.getpid(), 9)", -signal.SIGKILL), ("raise SystemExit(3)", 3)],
)
async def test_a_child(code: str, status: int) -> None:
    """The agent is its parent, and is told."""
    deaths, woken = Deaths(), []

    await deaths.watch(child(code), lambda: woken.append(True))

    assert [one.status for one in deaths.listed()] == [status]
    assert woken == [True]


async def test_a_clock_that_was_set() -> None:
    """It makes no second process of one, whose end was asked for or counts once."""
    for asked in (True, False):
        deaths = Deaths()
        process = replace(child("raise SystemExit(3)"), birth="boot-1-2")
        later = replace(process, started=process.started + 3600)
        deaths.expect(process)
        deaths.expect(later)
        if asked:
            deaths.asked(later)
        assert deaths._expected.qsize() == 1
        await deaths.watch(process, lambda: None)
        assert len(deaths.listed()) == (not asked)


async def test_each_once() -> None:
    """Who watches may not know yet that it is gone; another one with its pid is another one."""
    deaths = Deaths()
    process = child("raise SystemExit(3)")

    for _ in range(3):
        await deaths.watch(process, lambda: None)
    assert [one.status for one in deaths.listed()] == [3]

    await deaths.watch(replace(process, started=2.5), lambda: None)
    assert [one.status for one in deaths.listed()] == [3, None]


async def test_asked_for() -> None:
    """One that the agent replaces is no death of another's doing; the next one is."""
    deaths = Deaths()
    process = child("import time; time.sleep(60)")
    deaths.asked(process)
    os.kill(process.pid, signal.SIGKILL)

    await deaths.watch(process, lambda: None)
    assert deaths.listed() == ()

    await deaths.watch(child("raise SystemExit(1)"), lambda: None)
    assert len(deaths.listed()) == 1


async def test_before_anybody_watches() -> None:
    """Where one ends as soon as it has started, and the next one does, too, both count."""
    deaths, ended = Deaths(), asyncio.Queue[CharonProcess]()
    killed = child("import os; os.kill(os.getpid(), 9)")
    failed = replace(child("raise SystemExit(3)"), started=2.5)
    for process in (killed, killed, failed):
        deaths.expect(process)

    watching = asyncio.create_task(deaths.run(lambda: None, ended.put_nowait))
    async with asyncio.timeout(20):
        assert [await ended.get(), await ended.get()] == [killed, failed]
    watching.cancel()

    assert [one.status for one in deaths.listed()] == [-signal.SIGKILL, 3]


@pytest.mark.parametrize(
    ("answer", "status"),
    [
        (UnitState("activating", "auto-restart", "signal", 0, 9), -9),
        (UnitState("activating", "auto-restart", "oom-kill", 0, 9), -9),
        (UnitState("failed", "failed", "exit-code", 0, 66), 66),
        (UnitState("active", "running", "success", 7, 0), None),
        (CharonStartError("systemd did not answer"), None),
    ],
)
async def test_of_a_unit(
    monkeypatch: pytest.MonkeyPatch, answer: UnitState | CharonStartError, status: int | None
) -> None:
    """systemd is asked for what only it was told; where it runs again already, nobody knows."""
    gone = reaped()

    async def unit_state(name: str, *, deadline: float) -> UnitState:
        assert (name, deadline > 0) == ("charon.service", True)
        if isinstance(answer, CharonStartError):
            raise answer
        return answer

    monkeypatch.setenv(CHARON_UNIT, "charon.service")
    monkeypatch.setattr(module, "unit_state", unit_state)
    deaths = Deaths()

    await deaths.watch(gone, lambda: None)

    assert [one.status for one in deaths.listed()] == [status]


def test_watchdog() -> None:
    """Whatever of systemd's sends a signal."""
    assert status_of(UnitState("failed", "failed", "core-dump", 0, 11)) == -11
