"""Renewals run in the background, some at once."""

import asyncio
import time
from pathlib import Path

import pytest

from ipsec_agent.core.model import Connection
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.pacing import TURN
from ipsec_agent.errors import CharonGoneError
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.renewals import RENEWALS_AT_ONCE, Renewals
from tests.core.test_orphans import OWN, PEER, WISH
from tests.slow_charon import charon

DELAY = 0.2
ANSWERS = 3
"""That charon gives of each: it loads, initiates, unloads."""


def connection(number: int) -> Connection:
    """A renewal like that of a peer, with a name of its own."""
    made = renewal(WISH, (OWN, PEER))
    assert made is not None
    return Connection(f"{made.name}-{number}", made.action, made.remote, made.children)


async def settled(renewals: Renewals) -> None:
    """Wait until none is under way."""
    async with asyncio.timeout(20):
        await asyncio.wait(renewals._tasks.values())
    await asyncio.sleep(0)


async def test_several_at_once(tmp_path: Path) -> None:
    """To begin takes no time, and all of them less than one after the other."""
    ended: list[float] = []
    with charon(tmp_path, DELAY):
        renewals = Renewals(tmp_path / "charon.vici", 5.0, lambda: ended.append(time.monotonic()))
        began = time.monotonic()
        for number in range(2 * RENEWALS_AT_ONCE):
            renewals.begin(connection(number))
            renewals.begin(connection(number))
        begun = list(ended)
        names = renewals.under_way
        await settled(renewals)
        took = time.monotonic() - began

    assert begun == []
    assert len(names) == len(ended) == 2 * RENEWALS_AT_ONCE
    assert 2 * ANSWERS * DELAY <= took < 2 * RENEWALS_AT_ONCE * ANSWERS * DELAY / 2


async def test_one_that_has_begun_has_its_turn(tmp_path: Path) -> None:
    """charon is asked once in that time, whatever becomes of the negotiation."""
    with charon(tmp_path, 0.0):
        renewals = Renewals(tmp_path / "charon.vici", 5.0, lambda: None)
        renewals.begin(connection(1))
        await settled(renewals)
        before, name = dict(renewals._tasks), connection(1).name
        renewals.begin(connection(1))
        assert renewals._tasks == before
        assert renewals.under_way == {name}
        renewals._handed_over[name] -= TURN
        assert not renewals.under_way
        renewals.begin(connection(1))
        assert renewals._tasks != before
        await renewals.end()


async def test_the_last_child_is_asked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The ordinary one is only there for what the peer may ask for later."""
    asked: list[tuple[str, str]] = []

    async def note(_client: CharonClient, child: str, connection: str) -> None:
        asked.append((child, connection))

    monkeypatch.setattr(CharonClient, "initiate", note)
    made = [renewal(WISH, (OWN, PEER), level) for level in (0, 2)]
    with charon(tmp_path, 0.0):
        for one in made:
            assert one is not None
            renewals = Renewals(tmp_path / "charon.vici", 5.0, lambda: None)
            renewals.begin(one)
            await settled(renewals)
            await renewals.end()

    name = made[0].name if made[0] is not None else ""
    assert asked == [(name, name), (f"{name}-after-2", name)]


async def test_a_failure_is_told_to_who_begins_it_again(tmp_path: Path) -> None:
    """Once; the call after that begins another attempt."""
    renewals = Renewals(tmp_path / "none", 5.0, lambda: None)
    renewals.begin(connection(1))
    await settled(renewals)

    with pytest.raises(CharonGoneError):
        renewals.begin(connection(1))
    renewals.begin(connection(1))
    assert len(renewals.under_way) == 1
    await renewals.end()


async def test_the_end(tmp_path: Path) -> None:
    """Nothing is left under way."""
    with charon(tmp_path, 10.0):
        renewals = Renewals(tmp_path / "charon.vici", 20.0, lambda: None)
        for number in range(2 * RENEWALS_AT_ONCE):
            renewals.begin(connection(number))
        await asyncio.sleep(0.1)
        await renewals.end()

    assert not renewals.under_way
    assert len(asyncio.all_tasks()) == 1
