"""Deadlines that this process's own sleep does not count for."""

import asyncio
import socket
import time

import pytest

from ipsec_agent.host import own_time

SHORT, LONG = 0.3, 1.0


@pytest.fixture(autouse=True)
def short_ticks(monkeypatch: pytest.MonkeyPatch) -> None:
    """A tick is short beside the sleeps."""
    monkeypatch.setattr(own_time, "TICK", 0.1)


async def test_time_passes() -> None:
    """It is over after as many seconds, and the grace."""
    began = time.monotonic()
    with pytest.raises(TimeoutError):
        async with own_time.timeout(SHORT):
            await asyncio.sleep(60)

    assert SHORT <= time.monotonic() - began < SHORT + 1


async def test_in_time() -> None:
    """What ends before is not disturbed, then or later."""
    async with own_time.timeout(SHORT):
        await asyncio.sleep(0)
    await asyncio.sleep(2 * SHORT)


async def test_sleep_does_not_count() -> None:
    """A process that did not run has waited for no more than a tick."""
    async with own_time.timeout(SHORT):
        time.sleep(LONG)  # noqa: ASYNC251 - as SIGSTOP
        await asyncio.sleep(own_time.GRACE / 2)


async def test_what_has_arrived_is_read() -> None:
    """Though this process slept through the end of the deadline."""
    ours, other = socket.socketpair()
    reader, writer = await asyncio.open_connection(sock=ours)
    try:
        with other:
            async with own_time.timeout(own_time.TICK):
                answer = asyncio.create_task(reader.readexactly(6))
                await asyncio.sleep(0)
                other.send(b"answer")
                time.sleep(LONG)  # noqa: ASYNC251 - as SIGSTOP
                assert await answer == b"answer"
    finally:
        writer.close()


async def test_wait() -> None:
    """Waits for a task no longer than that, and lets it go on."""
    over = asyncio.Event()
    task = asyncio.create_task(over.wait())
    await own_time.wait(task, own_time.TICK)
    assert not task.done()
    over.set()
    await own_time.wait(task, 60)
    assert task.done()
