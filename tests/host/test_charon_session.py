"""The session that steps share: one connection, one failure."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from ipsec_agent.errors import CharonGoneError
from ipsec_agent.host import charon_session
from ipsec_agent.host.charon import CharonClient, open_charon
from ipsec_agent.host.charon_session import CharonSession

DEADLINE = 5.0


async def used(session: CharonSession) -> CharonClient:
    """A step's use of the session."""
    async with session.client(None) as client:
        return client


async def asked(session: CharonSession) -> None:
    """A step that asks charon."""
    async with session.client(None) as client:
        await client.version()


async def test_one_connection(tmp_path: Path) -> None:
    """Steps that begin together have one connection; after its end there is another one."""
    callers = 0

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal callers
        callers += 1
        writer.close()

    path = tmp_path / "vici"
    async with await asyncio.start_unix_server(answer, str(path)):
        session = CharonSession(path, DEADLINE)
        clients = await asyncio.gather(*(used(session) for _ in range(5)))
        assert len(set(map(id, clients))) == 1
        for number in (1, 2):
            with pytest.raises(CharonGoneError):
                await asked(session)
            assert callers == number


async def test_one_failure(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where nobody accepts, one step has tried for all that wait: with a charon that hangs it would
    else be one deadline after the other. Who asks later tries again."""
    attempts = 0

    @contextlib.asynccontextmanager
    async def counted(path: Path, deadline: float) -> AsyncIterator[CharonClient]:
        nonlocal attempts
        attempts += 1
        await asyncio.sleep(0)
        async with open_charon(path, deadline) as client:
            yield client

    monkeypatch.setattr(charon_session, "open_charon", counted)
    session = CharonSession(tmp_path / "vici", DEADLINE)

    outcomes = await asyncio.gather(*(used(session) for _ in range(20)), return_exceptions=True)

    assert attempts == 1
    assert [type(one) for one in outcomes] == [CharonGoneError] * 20
    assert len({id(one) for one in outcomes}) == 20, "each is raised in a task of its own"
    with pytest.raises(CharonGoneError):
        await used(session)
    assert attempts == 2
