"""A charon that answers late, or not at all: how the loop learns of it."""

import asyncio
import time
from ipaddress import ip_address
from pathlib import Path

import pytest

from ipsec_agent import charon_part
from ipsec_agent.charon_part import CharonPart
from ipsec_agent.core import plan as machine_plan
from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.plan import plan
from ipsec_agent.core.steps import KillCharon
from ipsec_agent.host import own_time
from tests.configs import config
from tests.slow_charon import charon

DEADLINE, PATIENCE = 1.0, 0.1
OWN = ip_address("10.0.0.5")
WISH = desired(config(), Placement(OWN, (OWN,)))


class Loop:
    """Passes as the loop makes them: whenever it is woken."""

    def __init__(self, part: CharonPart) -> None:
        self.part = part
        self.woken = asyncio.Event()
        part._wake = self.woken.set
        self.seen: list[Charon | None] = []

    async def run(self, passes: int) -> float:
        """Make passes, each but the first woken by charon's part itself; seconds that it took."""
        began = time.monotonic()
        for number in range(passes):
            if number:
                async with asyncio.timeout(10):
                    await self.woken.wait()
            self.woken.clear()
            self.seen.append(await self.part.answer())
        await self.part.forget()
        return time.monotonic() - began


def said(loop: Loop) -> list[tuple[bool, int, int]]:
    """Whether charon answered, and the deadlines that it missed, in each pass."""
    return [(one.responsive, one.missed, one.idle) for one in loop.seen if one is not None]


async def nothing_left() -> Inherited:
    """The kernel is empty."""
    return Inherited()


@pytest.fixture
def loop(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Loop:
    """Deadlines are short here."""
    monkeypatch.setattr(charon_part, "VICI_DEADLINE", DEADLINE)
    monkeypatch.setattr(charon_part, "PATIENCE", PATIENCE)
    monkeypatch.setattr(own_time, "TICK", 0.1)
    directories = AgentConfig(run_dir=str(tmp_path), state_dir=str(tmp_path))
    return Loop(CharonPart(config(agent=directories), nothing_left))


async def test_one_that_hangs(loop: Loop, tmp_path: Path) -> None:
    """No pass waits for it, and two missed deadlines in a row are known after two deadlines."""
    with charon(tmp_path, delay=60):
        # In this process's own time: a machine may give it no CPU for a while.
        async with own_time.timeout(2 * DEADLINE + 1):
            took = await loop.run(3)

    assert said(loop) == [(False, 0, 0), (False, 1, 1), (False, 2, 2)]
    assert took >= 2 * DEADLINE


async def test_one_that_works(loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it uses a CPU, its deadlines are told from those of one that hangs."""
    monkeypatch.setattr(charon_part, "VICI_DEADLINE", 0.2)
    with charon(tmp_path, delay=60, busy=True):
        await loop.run(3)

    assert said(loop) == [(False, 0, 0), (False, 1, 0), (False, 2, 0)]


async def test_one_that_works_for_too_long(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Once it has been silent for long it is replaced, too, and not before."""
    monkeypatch.setattr(charon_part, "VICI_DEADLINE", 0.2)
    monkeypatch.setattr(machine_plan, "SILENT_MOST", 1.0)
    with charon(tmp_path, delay=60, busy=True):
        took = await loop.run(7)

    silent = [one.silent for one in loop.seen if one is not None]
    assert 6 * 0.2 <= silent[-1] <= took
    assert silent == sorted(silent)
    planned = [plan(Drift(WISH, Observed(one))) for one in loop.seen]
    assert [bool(steps) for steps in planned] == [seconds >= 1.0 for seconds in silent]
    assert [type(step) for step in planned[-1]] == [KillCharon]
    assert planned[2] == ()


async def test_sleep_is_no_silence(loop: Loop, tmp_path: Path) -> None:
    """A deadline in which this process hardly ran counts no more than two."""
    with charon(tmp_path, delay=60, busy=True):
        assert (await loop.part.answer()) is not None
        time.sleep(3 * DEADLINE)  # noqa: ASYNC251 - as SIGSTOP, or a machine that gives no CPU
        async with asyncio.timeout(10):
            await loop.woken.wait()
        seen = await loop.part.answer()
        await loop.part.forget()

    assert seen is not None
    assert (seen.missed, seen.idle) == (1, 0)
    assert seen.silent == 2 * DEADLINE


@pytest.mark.parametrize("delay", [0.05, 60])
async def test_while_this_process_sleeps(loop: Loop, tmp_path: Path, delay: float) -> None:
    """An answer that has arrived meanwhile is heard; none has come where charon has hung for less
    than a deadline of this process's own."""
    with charon(tmp_path, delay=delay):
        assert (await loop.part.answer()) is not None
        time.sleep(3 * DEADLINE)  # noqa: ASYNC251 - as SIGSTOP, or a machine that gives no CPU
        async with asyncio.timeout(10):
            await loop.woken.wait() if delay < 1 else await asyncio.sleep(0.05)
        seen = await loop.part.answer()
        await loop.part.forget()

    assert seen is not None
    assert (seen.responsive, seen.missed) == (delay < 1, 0)


async def test_no_pass_ends_while_this_process_sleeps(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """To be without a CPU for a moment makes no charon unresponsive."""
    # Shorter than the sleep, but not so short that a charon without a CPU would miss it.
    monkeypatch.setattr(charon_part, "PATIENCE", 2 * DEADLINE)
    with charon(tmp_path, delay=0.002):
        asyncio.get_running_loop().call_later(0.01, time.sleep, 3 * DEADLINE)
        seen = await loop.part.answer()
        await loop.part.forget()

    assert seen is not None
    assert seen.responsive


async def test_one_that_is_slow(loop: Loop, tmp_path: Path) -> None:
    """It answers after the first pass has gone on without it; the next one hears it."""
    with charon(tmp_path, delay=0.05):
        await loop.run(2)

    first, second = loop.seen
    assert first is not None
    assert (first.responsive, first.missed) == (False, 0)
    assert second is not None
    assert second.responsive
    assert second.version == "slow"


async def test_one_that_answers(
    loop: Loop, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A pass hears it at once."""
    # Long enough for a charon without a CPU.
    monkeypatch.setattr(charon_part, "PATIENCE", 20 * DEADLINE)
    with charon(tmp_path, delay=0):
        took = await loop.run(1)

    assert took < 20 * DEADLINE
    assert loop.seen[0] is not None
    assert loop.seen[0].responsive
