"""charon's log is heard before the first connection is loaded."""

import asyncio
import time
from pathlib import Path

import pytest
from vici.protocol import Packet

from ipsec_agent.core.charon_log import Said
from ipsec_agent.host import charon_events
from ipsec_agent.host.charon_events import EVENTS, SOON, CharonEvents
from tests.host.test_vici_wire import Caller, charon


async def confirmed(caller: Caller) -> None:
    """Confirm each registration, and say one line at once."""
    for _ in EVENTS:
        await caller.hear()
        caller.say(Packet.EVENT_CONFIRM)
    caller.say(Packet.EVENT, {"group": "IKE", "level": "1", "msg": "refused"}, event="log")
    await caller.gone()


async def watched(path: Path, said: list[Said]) -> tuple[CharonEvents, asyncio.Task[None]]:
    """A watch whose first attempt found no charon."""
    events = CharonEvents(path)
    watch = asyncio.create_task(events.watch(lambda: None, said.append))
    await asyncio.sleep(0.1)
    return events, watch


async def ended(watch: asyncio.Task[None]) -> None:
    """End a watch."""
    watch.cancel()
    await asyncio.gather(watch, return_exceptions=True)


async def test_a_new_charon_is_heard_at_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not only with the next attempt: by then it may have said why a peer refuses this VM."""
    monkeypatch.setattr(charon_events, "RECONNECT", 60.0)
    monkeypatch.setattr(charon_events, "SOON", 20.0)
    said: list[Said] = []
    path = tmp_path / "charon.vici"
    events, watch = await watched(path, said)

    async with charon(path, confirmed) as callers:
        await events.expect()
        names = [name for _, name, _ in callers[0].heard]
        async with asyncio.timeout(5):
            while not said:  # noqa: ASYNC110 - the line comes by itself
                await asyncio.sleep(0.01)
        await ended(watch)

    assert names == list(EVENTS)
    assert said[0].text == "refused"


async def test_one_that_tells_nothing_is_waited_for_a_while(tmp_path: Path) -> None:
    """The traps must come, heard or not."""
    path = tmp_path / "charon.vici"
    events, watch = await watched(path, [])

    async with charon(path, Caller.gone):
        began = time.monotonic()
        await events.expect()
        took = time.monotonic() - began
        await ended(watch)

    assert SOON * 0.9 <= took < SOON * 3


async def test_without_a_watch_nothing_waits(tmp_path: Path) -> None:
    """As where a pass runs alone."""
    began = time.monotonic()
    await CharonEvents(tmp_path / "charon.vici").expect()
    assert time.monotonic() - began < SOON / 2
