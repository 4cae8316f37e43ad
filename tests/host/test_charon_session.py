"""The session that steps share: one connection, one failure."""

import asyncio
import socket
import time
from pathlib import Path

import pytest

from ipsec_agent.errors import CharonGoneError, CharonTimeoutError
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.charon_session import CharonSession

SHORT = 0.3
"""Seconds of deadline where nobody answers."""


async def version(session: CharonSession) -> CharonClient:
    """A step's use of the session."""
    async with session.client(None) as client:
        return client


async def test_one_connection(tmp_path: Path) -> None:
    """Steps that begin together have one connection; the next one after its end has another."""
    callers = 0

    async def answer(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal callers
        callers += 1
        writer.close()

    path = tmp_path / "vici"
    async with await asyncio.start_unix_server(answer, str(path)):
        session = CharonSession(path, SHORT)
        clients = await asyncio.gather(*(version(session) for _ in range(5)))
        assert len(set(map(id, clients))) == 1
        for number in (1, 2):
            with pytest.raises(CharonGoneError):
                async with session.client(None) as client:
                    await client.version()
            assert callers == number
        assert client is not clients[0]


async def test_one_failure(tmp_path: Path) -> None:
    """A charon that accepts nobody keeps all steps waiting for one deadline, not for one each."""
    path = tmp_path / "vici"
    with socket.socket(socket.AF_UNIX) as listener, socket.socket(socket.AF_UNIX) as first:
        listener.bind(str(path))
        listener.listen(0)
        first.connect(str(path))
        session = CharonSession(path, SHORT)
        began = time.monotonic()
        outcomes = await asyncio.gather(
            *(version(session) for _ in range(20)), return_exceptions=True
        )
        assert time.monotonic() - began < 20 * SHORT
        # Who asks later asks again.
        with pytest.raises(CharonTimeoutError):
            await version(session)
    assert [type(one) for one in outcomes] == [CharonTimeoutError] * 20
    assert len({id(one) for one in outcomes}) == 20
    with pytest.raises(CharonGoneError):
        await version(session)
