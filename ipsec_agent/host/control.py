"""The control socket, the agent's end: one JSON line in, one JSON line out.

The socket is a UNIX socket of mode 0660; reading the status is open to all who may connect, what
changes something only to root and the agent's own user (SO_PEERCRED, unix(7)).
"""

import asyncio
import contextlib
import json
import os
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from pathlib import Path
from typing import Any

from ipsec_agent.errors import AgentError, ControlError

MAX_REQUEST = 64 * 1024
"""Bytes of the longest request line."""

DEADLINE = 5.0
"""Seconds that a caller may take to send its request or to take its answer."""

MAX_CALLERS, MAX_WAITING, MAX_SILENT = 32, 64, 64
"""Callers whose requests are worked on at once; those whose requests wait for that, and one more is
refused; those who have not said yet what they want, and one more takes the place of the oldest."""

UCRED = struct.Struct("3i")

Verb = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]


@contextlib.asynccontextmanager
async def serve_control(
    path: Path, reading: Mapping[str, Verb], changing: Mapping[str, Verb]
) -> AsyncIterator[None]:
    """Answer requests on the socket while the context is open; the file goes with it.

    Args:
        reading: verbs open to all who may connect.
        changing: verbs for root and the agent's own user.

    Raises:
        ControlError: the socket cannot be made.
    """
    places = asyncio.Semaphore(MAX_CALLERS)
    silent: dict[asyncio.StreamWriter, asyncio.Task[bytes | None]] = {}
    waiting: set[asyncio.StreamWriter] = set()

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            line = await _request(reader, writer, silent)
            if line is None:
                return
            if len(waiting) >= MAX_WAITING:
                reply = _refusal("the agent has too many requests to answer", "try again")
            else:
                waiting.add(writer)
                async with places:
                    waiting.discard(writer)
                    reply = await _reply(line, writer, reading, changing)
            await _send(writer, reply)
        finally:
            waiting.discard(writer)
            writer.close()

    try:
        listener = _listen(path)
    except OSError as error:
        raise ControlError(
            f"cannot create the control socket {path}: {error.strerror}",
            hint="run as root, or change agent.run_dir",
        ) from error
    server = await asyncio.start_unix_server(answer, sock=listener, limit=MAX_REQUEST)
    try:
        yield
    finally:
        server.close()
        _remove(path)


def _remove(path: Path) -> None:
    path.unlink(missing_ok=True)


def _listen(path: Path) -> socket.socket:
    _remove(path)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    before = os.umask(0o117)
    try:
        listener.bind(str(path))
    except OSError:
        listener.close()
        raise
    finally:
        os.umask(before)
    return listener


async def _request(
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
    silent: dict[asyncio.StreamWriter, asyncio.Task[bytes | None]],
) -> bytes | None:
    """The line of a caller; None where there is none, and the caller was told why.

    Args:
        silent: those who have not said yet what they want, the oldest first.
    """
    if len(silent) >= MAX_SILENT:
        # Whoever really wants something says it within a millisecond.
        silent.pop(next(iter(silent))).cancel()
    silent[writer] = asyncio.create_task(_line(reader), name="request")
    try:
        return await silent[writer] or None
    except TimeoutError:
        reply = _refusal("the request came too late")
    except ValueError:
        reply = _refusal(f"the request is longer than {MAX_REQUEST} bytes")
    except ConnectionError:
        return None
    except asyncio.CancelledError:
        if writer in silent:
            raise
        reply = _refusal("the agent has too many callers that say nothing", "try again")
    finally:
        silent.pop(writer, None)
    await _send(writer, reply)
    return None


async def _line(reader: asyncio.StreamReader) -> bytes:
    async with asyncio.timeout(DEADLINE):
        return await reader.readline()


async def _send(writer: asyncio.StreamWriter, reply: Mapping[str, Any]) -> None:
    try:
        async with asyncio.timeout(DEADLINE):
            # The drain is over once the kernel has all of it.
            writer.transport.set_write_buffer_limits(0)
            writer.write(json.dumps(reply).encode() + b"\n")
            await writer.drain()
    except (ConnectionError, TimeoutError):
        # To close it would still wait for a caller that does not read.
        writer.transport.abort()


async def _reply(
    line: bytes,
    writer: asyncio.StreamWriter,
    reading: Mapping[str, Verb],
    changing: Mapping[str, Verb],
) -> dict[str, Any]:
    try:
        request = json.loads(line)
    except (ValueError, RecursionError):
        # A number of more than 4,300 digits is a ValueError of Python's own.
        return _refusal("the request is not JSON")
    verb = request.get("verb") if isinstance(request, dict) else None
    if not isinstance(verb, str) or verb not in {*reading, *changing}:
        return _refusal("the request has no verb that this agent knows")
    if verb in changing and not _may_change(writer):
        return _refusal(f"{verb} is for root only", "run it as root, or with sudo")
    try:
        return {"ok": True, **await (reading.get(verb) or changing[verb])(request)}
    except AgentError as error:
        complaints = list(error.complaints)
        return {**_refusal(error.message, error.hint), "complaints": complaints}


def _may_change(writer: asyncio.StreamWriter) -> bool:
    caller = writer.get_extra_info("socket")
    credentials = caller.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    _pid, uid, _gid = UCRED.unpack(credentials)
    return uid in {0, os.getuid()}


def _refusal(error: str, hint: str = "") -> dict[str, Any]:
    return {"ok": False, "error": error, "hint": hint}
