"""One VICI connection over asyncio streams: request, stream, events, deadline, close.

Frames are those of strongSwan's src/libcharon/plugins/vici/README.md. The package `vici` encodes
what is sent; vici_message.py decodes what comes, since it is faster.
"""

import asyncio
import contextlib
import copy
import socket
import struct
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from vici.protocol import Message, Packet

from ipsec_agent.errors import (
    CharonError,
    CharonGoneError,
    CharonRefusedError,
    CharonTimeoutError,
    ForeignCharonError,
)
from ipsec_agent.host import own_time
from ipsec_agent.host.understood import understood
from ipsec_agent.host.vici_message import decoded
from ipsec_agent.host.writers import peer_of, trusted

DEADLINE = 5.0
"""Seconds that charon may take for one answer; a healthy one takes milliseconds."""

MAX_FRAME = 512 * 1024
"""Bytes of the largest frame (README.md of vici)."""

BACKLOG_PAUSE = 0.05
"""Seconds between attempts to connect while the backlog is full."""


class ViciConnection:
    """A connection that is thrown away after the first failure, since answers bear no id.

    Requests may be under way together: each is sent at once, and charon answers one after the other
    in the order in which they came (vici_socket.c: process_queue).
    """

    def __init__(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, deadline: float
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._deadline = deadline
        self._registered: set[str] = set()
        self._unsent: list[bytes] = []
        self._turn = asyncio.Lock()
        self._failure: CharonError | None = None

    async def request(
        self, command: str, message: Mapping[str, Any] | None = None
    ) -> dict[str, Any]:
        """Send a command and return its answer.

        Raises:
            CharonRefusedError: charon answered `success = no`, does not know the command, or would
                take none of this size.
            CharonTimeoutError: it did not answer in time.
            CharonGoneError: it closed the connection, or sent what is no VICI.
        """
        self._send(_request(command, message))
        async with self._exchange(command):
            return await self._answer(command)

    async def stream(
        self, command: str, event: str, message: Mapping[str, Any] | None = None
    ) -> list[dict[str, Any]]:
        """Send a command that answers by events, and return them all.

        Raises:
            CharonError: as `request`.
        """
        found = await self.frames(command, event, message)
        with _understood():
            return [decoded(one) for one in found]

    async def frames(
        self, command: str, event: str, message: Mapping[str, Any] | None = None
    ) -> list[bytes]:
        """What the events say, as it comes.

        Raises:
            CharonError: as `request`.
        """
        frames: list[bytes] = []
        request = _request(command, message)
        if new := event not in self._registered:
            # It stays so until the connection ends: charon raises it for who asked alone
            # (vici_query.c), and would send it twice to who registers twice.
            self._registered.add(event)
            self._send(Packet.register_event(event))
        self._send(request)
        async with self._exchange(command):
            if new:
                await self._confirm(event)
            await self._answer(command, frames)
        with _understood():
            return [frame[_end_of_name(frame) :] for frame in frames]

    async def listen(
        self, events: tuple[str, ...], ready: Callable[[], None] = lambda: None
    ) -> AsyncIterator[tuple[str, dict[str, Any]]]:
        """Events as they come, until cancelled; those that this charon does not know are left out.

        Args:
            ready: is called once charon sends them.

        Raises:
            CharonGoneError: the connection ended.
        """
        for event in events:
            self._send(Packet.register_event(event))
        for event in events:
            async with self._exchange(event):
                await self._confirm(event, unknown_is_fine=True)
        ready()
        while True:
            frame = await self._receive()
            if frame[0] == Packet.EVENT:
                yield _event(frame)

    @contextlib.asynccontextmanager
    async def _exchange(self, what: str) -> AsyncIterator[None]:
        """The turn of what was sent to be answered, and the deadline from then on.

        Whatever cuts it also ends the connection: what waits behind it would take the rest of its
        answer for its own.
        """
        try:
            async with self._turn:
                if self._failure is not None:
                    raise copy.copy(self._failure)
                async with own_time.timeout(self._deadline):
                    await self._sent()
                    yield
        except TimeoutError as error:
            self._failure = CharonTimeoutError(
                f"charon did not answer {what} within {self._deadline:g} s",
                hint="it hangs or is stopped by a signal; see `ipsec-agent status`",
            )
            raise self._failure from error
        except CharonGoneError as error:
            self._failure = error
            raise
        except asyncio.CancelledError:
            self._failure = self._failure or _gone("was not waited for")
            raise
        finally:
            if self._failure is not None:
                # What is not sent yet must not be: a charon that hangs would do it once it goes on,
                # whatever it has been asked for since.
                self._writer.transport.abort()

    def _send(self, packet: bytes) -> None:
        """Send with what else is to be sent now; a connection that has failed takes no more."""
        if self._failure is None:
            if not self._unsent:
                asyncio.get_running_loop().call_soon(self._flush)
            self._unsent.append(struct.pack("!I", len(packet)) + packet)

    def _flush(self) -> None:
        unsent, self._unsent = self._unsent, []
        if unsent and self._failure is None:
            self._writer.write(b"".join(unsent))

    async def _sent(self) -> None:
        self._flush()
        try:
            await self._writer.drain()
        except OSError as error:
            raise _gone() from error

    async def _receive(self) -> bytes:
        """The next frame, which is not empty; its first byte says its kind."""
        try:
            (length,) = struct.unpack("!I", await self._reader.readexactly(4))
            if length > MAX_FRAME or length == 0:
                raise _gone(f"sent a frame of {length} bytes")
            return await self._reader.readexactly(length)
        except (asyncio.IncompleteReadError, OSError) as error:
            raise _gone() from error

    async def _confirm(self, event: str, *, unknown_is_fine: bool = False) -> None:
        frame = await self._receive()
        while frame[0] == Packet.EVENT:
            frame = await self._receive()
        if frame[0] == Packet.EVENT_CONFIRM:
            return
        if frame[0] != Packet.EVENT_UNKNOWN:
            raise _gone(f"answered out of step (type {frame[0]})")
        if not unknown_is_fine:
            self._failure = CharonRefusedError(f"charon does not know the event {event}")
            raise self._failure

    async def _answer(self, command: str, events: list[bytes] | None = None) -> dict[str, Any]:
        """The answer; the frames of events before it are collected, or of no interest."""
        frame = await self._receive()
        while frame[0] == Packet.EVENT:
            if events is not None:
                events.append(frame)
            else:
                _event(frame)
            frame = await self._receive()
        if frame[0] == Packet.CMD_UNKNOWN:
            raise CharonRefusedError(
                f"charon does not know {command}",
                hint="it lacks a plugin: see agent.charon.plugins",
            )
        if frame[0] != Packet.CMD_RESPONSE:
            raise _gone(f"answered out of step (type {frame[0]})")
        with _understood():
            answer = decoded(frame, 1)
        _refuse_failure(command, answer)
        return answer


def _request(command: str, message: Mapping[str, Any] | None) -> bytes:
    """The frame of a command.

    Raises:
        CharonRefusedError: it is larger than any that charon takes, or a value of it is.
    """
    try:
        frame = bytes(Packet.request(command, Message.serialize(dict(message or {}))))
    except struct.error:
        frame = bytes(MAX_FRAME + 1)
    if len(frame) > MAX_FRAME:
        raise CharonRefusedError(
            f"charon cannot take {command}: it is too large",
            hint="list fewer or smaller certificates in the config",
        )
    return frame


def _event(frame: bytes) -> tuple[str, dict[str, Any]]:
    """The name of an event, and what it says."""
    with _understood():
        end = _end_of_name(frame)
        return frame[2:end].decode(errors="replace"), decoded(frame, end)


def _end_of_name(frame: bytes) -> int:
    """Where what an event says begins."""
    return 2 + frame[1]


def _understood() -> AbstractContextManager[None]:
    return understood(lambda _error: _gone("sent invalid VICI data"))


def _refuse_failure(command: str, answer: Mapping[str, Any]) -> None:
    """Raise where charon says that it did not do what it was asked for."""
    if answer.get("success", b"yes") != b"yes":
        reason = answer.get("errmsg", b"without a reason")
        if not isinstance(reason, bytes):
            raise _gone("sent invalid VICI data")
        raise CharonRefusedError(f"charon refused {command}: {reason.decode(errors='replace')}")


def _gone(how: str = "closed the VICI connection") -> CharonGoneError:
    return CharonGoneError(f"charon {how}", hint="the agent restarts it")


@contextlib.asynccontextmanager
async def open_vici(path: Path, deadline: float = DEADLINE) -> AsyncIterator[ViciConnection]:
    """A connection to the charon that listens on a socket; closed with the context.

    Raises:
        CharonGoneError: no process listens there.
        CharonTimeoutError: its backlog is full and it does not accept.
        ForeignCharonError: another user's program listens; nothing was sent to it.
    """
    try:
        async with own_time.timeout(deadline):
            channel = await _connected(path)
            _refuse_stranger(channel, path)
            reader, writer = await asyncio.open_unix_connection(sock=channel, limit=MAX_FRAME)
    except TimeoutError as error:
        raise CharonTimeoutError(
            f"charon did not accept on {path} within {deadline:g} s", hint="it hangs"
        ) from error
    except OSError as error:
        raise CharonGoneError(
            f"no charon answers on {path}: {error.strerror}", hint="check that charon runs"
        ) from error
    try:
        yield ViciConnection(reader, writer, deadline)
    finally:
        writer.transport.abort()


def _refuse_stranger(channel: socket.socket, path: Path) -> None:
    """Ask who listens before a private key is sent there.

    It is the user who called listen(2), so it is root's also of a charon that gives up root later.
    """
    pid, uid = peer_of(channel)
    if not trusted(uid):
        channel.close()
        raise ForeignCharonError(
            f"a program of another user (pid {pid}, user {uid}) listens on {path}; nothing was"
            " sent to it",
            hint=f"end it: kill {pid}. Let only root write the socket's directory",
        )


async def _connected(path: Path) -> socket.socket:
    """A connected socket, however long the backlog stays full.

    connect(2) says EAGAIN then, and nothing goes on behind it; asyncio would take that for a
    connection under way, and the socket, which is writable, for a connected one.
    """
    with contextlib.ExitStack() as on_failure:
        channel = on_failure.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
        channel.setblocking(False)
        while True:
            try:
                channel.connect(str(path))
            except BlockingIOError:
                await asyncio.sleep(BACKLOG_PAUSE)
            else:
                on_failure.pop_all()
                return channel
