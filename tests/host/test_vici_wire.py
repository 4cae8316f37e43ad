"""The VICI connection against a scripted charon: real frames over a real UNIX socket."""

import asyncio
import contextlib
import os
import socket
import struct
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from vici.protocol import FiniteStream, Message, Packet

from ipsec_agent.errors import (
    CharonGoneError,
    CharonRefusedError,
    CharonTimeoutError,
    ForeignCharonError,
)
from ipsec_agent.host.process import find_charon
from ipsec_agent.host.vici_wire import MAX_FRAME, open_vici

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")

SHORT = 0.3
"""Seconds of deadline where the scripted charon never answers."""


class Caller:
    """The agent, as the scripted charon sees it."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.reader = reader
        self.writer = writer
        self.heard: list[tuple[int, str, dict[str, Any]]] = []

    async def hear(self) -> None:
        """Take one frame."""
        (length,) = struct.unpack("!I", await self.reader.readexactly(4))
        frame = await self.reader.readexactly(length)
        end = 2 + frame[1]
        message = dict(Message.deserialize(FiniteStream(frame[end:])))
        self.heard.append((frame[0], frame[2:end].decode(), message))

    def say(self, kind: int, message: dict[str, Any] | None = None, *, event: str = "") -> None:
        """Send one frame; only events have a name."""
        name = struct.pack("!B", len(event)) + event.encode() if event else b""
        self.frame(struct.pack("!B", kind) + name + Message.serialize(message or {}))

    def frame(self, content: bytes) -> None:
        """Send a frame of these bytes."""
        self.writer.write(struct.pack("!I", len(content)) + content)

    async def gone(self) -> None:
        """Say nothing until the agent hangs up."""
        await self.reader.read()


Script = Callable[[Caller], Awaitable[None]]


@contextlib.asynccontextmanager
async def charon(path: Path, script: Script) -> AsyncIterator[list[Caller]]:
    """A charon that plays a script to each caller, then closes; yields the callers so far."""
    callers: list[Caller] = []
    scripts: list[asyncio.Task[None]] = []

    async def play(caller: Caller) -> None:
        try:
            with contextlib.suppress(ConnectionError):  # the agent may hang up amid a script
                await script(caller)
        finally:
            caller.writer.close()
            with contextlib.suppress(OSError):
                await caller.writer.wait_closed()

    def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        callers.append(Caller(reader, writer))
        scripts.append(asyncio.create_task(play(callers[-1])))

    async with await asyncio.start_unix_server(answer, str(path)):
        yield callers
        async with asyncio.timeout(10):
            await asyncio.gather(*scripts)


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the scripted charon listens."""
    return tmp_path / "charon.vici"


async def test_request(path: Path) -> None:
    """A request carries its message, and the answer comes back as nested bytes."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.CMD_RESPONSE, {"success": "yes", "a": {"list": ["x", "y"]}})

    async with charon(path, script) as callers, open_vici(path) as vici:
        answer = await vici.request("load-conn", {"name": {"key": "value", "list": ["1"]}})

    assert answer == {"success": b"yes", "a": {"list": [b"x", b"y"]}}
    assert callers[0].heard == [
        (Packet.CMD_REQUEST, "load-conn", {"name": {"key": b"value", "list": [b"1"]}})
    ]


THIEF = """
import os, socket, sys, time
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(sys.argv[1])
    os.setresgid(65534, 65534, 65534)
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
    listener.listen(1)
    print("listening", flush=True)
    caller, _ = listener.accept()
    print(len(caller.recv(65536)), flush=True)
    # It is looked at also after its caller has gone.
    time.sleep(60)
"""


@contextlib.contextmanager
def thief(path: Path, **environment: str) -> Iterator[subprocess.Popen[str]]:
    """A program of an ordinary user that listens on the socket; it prints what it was sent."""
    with subprocess.Popen(
        [sys.executable, "-c", THIEF, str(path)], stdout=subprocess.PIPE, env=environment, text=True
    ) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "listening\n"
            yield program
            assert program.stdout.readline() == "0\n"
        finally:
            program.kill()


@as_root
async def test_a_program_of_another_user(path: Path) -> None:
    """It is sent nothing, not even a question, and is named."""
    with (
        thief(path) as program,
        pytest.raises(ForeignCharonError, match=rf"pid {program.pid}, user 65534"),
    ):
        async with open_vici(path) as vici:
            await vici.request("load-key", {"data": b"secret"})


@as_root
def test_another_user_is_not_our_charon(path: Path) -> None:
    """Nor is it taken for our charon because of its environment."""
    conf = path.with_name("strongswan.conf")
    with thief(path, STRONGSWAN_CONF=str(conf)) as program:
        found = find_charon(path, conf)

    assert found is not None
    assert (found.pid, found.ours) == (program.pid, False)


async def test_event_before_the_answer(path: Path) -> None:
    """An event between a request and its answer is not taken for the answer."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.EVENT, {"group": "IKE"}, event="log")
        caller.say(Packet.CMD_RESPONSE, {"daemon": "charon"})

    async with charon(path, script), open_vici(path) as vici:
        assert await vici.request("version") == {"daemon": b"charon"}


async def test_stream(path: Path) -> None:
    """A stream registers, once in a connection, and collects its events in order."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.EVENT_CONFIRM)
        await caller.hear()
        for number in ("1", "2", "3"):
            caller.say(Packet.EVENT, {"number": number}, event="list-sa")
        caller.say(Packet.CMD_RESPONSE)
        await caller.hear()
        caller.say(Packet.EVENT, {"number": "4"}, event="list-sa")
        caller.say(Packet.CMD_RESPONSE)

    async with charon(path, script) as callers, open_vici(path) as vici:
        found = await vici.stream("list-sas", "list-sa", {"noblock": "no"})
        again = await vici.stream("list-sas", "list-sa")

    assert found == [{"number": b"1"}, {"number": b"2"}, {"number": b"3"}]
    assert again == [{"number": b"4"}]
    assert callers[0].heard == [
        (Packet.EVENT_REGISTER, "list-sa", {}),
        (Packet.CMD_REQUEST, "list-sas", {"noblock": b"no"}),
        (Packet.CMD_REQUEST, "list-sas", {}),
    ]


async def test_refusal(path: Path) -> None:
    """`success = no` is a refusal with charon's reason, and the connection lives on."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.CMD_RESPONSE, {"success": "no", "errmsg": "invalid value"})
        await caller.hear()
        caller.say(Packet.CMD_RESPONSE, {"success": "yes"})

    async with charon(path, script), open_vici(path) as vici:
        with pytest.raises(CharonRefusedError, match="refused load-conn: invalid value"):
            await vici.request("load-conn")
        assert await vici.request("load-conn") == {"success": b"yes"}


async def test_unknown_command(path: Path) -> None:
    """A command that charon does not know is a refusal that names it."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.CMD_UNKNOWN)

    async with charon(path, script), open_vici(path) as vici:
        with pytest.raises(CharonRefusedError, match="does not know counters"):
            await vici.request("counters")


async def test_unknown_event(path: Path) -> None:
    """A stream whose event charon does not know is a refusal."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.EVENT_UNKNOWN)

    async with charon(path, script), open_vici(path) as vici:
        with pytest.raises(CharonRefusedError, match="does not know the event list-x"):
            await vici.stream("list-xs", "list-x")


async def test_listen(path: Path) -> None:
    """Known events arrive with their name, an unknown one is left out, the end is an error."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.EVENT_UNKNOWN)
        await caller.hear()
        caller.say(Packet.EVENT_CONFIRM)
        caller.say(Packet.EVENT, {"up": "yes"}, event="ike-updown")

    async with charon(path, script), open_vici(path) as vici:
        events = vici.listen(("alert", "ike-updown"))
        assert await anext(events) == ("ike-updown", {"up": b"yes"})
        with pytest.raises(CharonGoneError):
            await anext(events)


async def test_hang(path: Path) -> None:
    """A charon that never answers costs the deadline, and the connection is useless after."""
    async with charon(path, Caller.gone), open_vici(path, SHORT) as vici:
        began = time.monotonic()
        with pytest.raises(CharonTimeoutError, match=r"did not answer stats within 0\.3 s"):
            await vici.request("stats")
        assert SHORT <= time.monotonic() - began < 10 * SHORT
        with pytest.raises((CharonGoneError, CharonTimeoutError)):
            await vici.request("stats")


async def test_hang_amid_a_stream(path: Path) -> None:
    """A stream that stalls after some events ends by the same deadline."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.EVENT_CONFIRM)
        caller.say(Packet.EVENT, {"number": "1"}, event="list-sa")
        await caller.gone()

    async with charon(path, script), open_vici(path, SHORT) as vici:
        with pytest.raises(CharonTimeoutError):
            await vici.stream("list-sas", "list-sa")


async def test_cancelled(path: Path) -> None:
    """A cancelled request ends the connection: the late answer cannot be taken for another's."""
    late = asyncio.Event()

    async def script(caller: Caller) -> None:
        await caller.hear()
        await late.wait()
        caller.say(Packet.CMD_RESPONSE, {"of": "the first"})
        await caller.gone()

    async with charon(path, script), open_vici(path, SHORT) as vici:
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(SHORT / 3):
                await vici.request("stats")
        late.set()
        with pytest.raises((CharonGoneError, CharonTimeoutError)):
            await vici.request("version")


@pytest.mark.parametrize(
    "sent",
    [
        b"",
        b"\0\0",
        struct.pack("!I", 100) + b"\x01half of it",
        struct.pack("!I", MAX_FRAME + 1),
        struct.pack("!I", 0),
    ],
    ids=["nothing", "half a length", "half a frame", "oversize", "empty frame"],
)
async def test_broken_frame(path: Path, sent: bytes) -> None:
    """Whatever is no whole frame means that charon is gone, at once and not by the deadline."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.writer.write(sent)

    async with charon(path, script), open_vici(path, 60) as vici:
        began = time.monotonic()
        with pytest.raises(CharonGoneError):
            await vici.request("stats")
        assert time.monotonic() - began < 10


async def test_oversize_is_not_read(path: Path) -> None:
    """The length alone condemns a frame: nobody waits for half a gigabyte."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.writer.write(struct.pack("!I", 1 << 29))
        await caller.gone()

    async with charon(path, script), open_vici(path, SHORT) as vici:
        with pytest.raises(CharonGoneError, match="a frame of 536870912 bytes"):
            await vici.request("stats")


@pytest.mark.parametrize(
    "content",
    [
        b"\x07",
        b"\x01\x03\x09short",
        b"\x01\x02",
        b"\x01\x01\x01a",
        b"\x01\x03\x01\xff\x00\x00",
        b"\x05",
    ],
    ids=["event cut", "key cut", "end too many", "open section", "no UTF-8", "out of step"],
)
async def test_no_vici(path: Path, content: bytes) -> None:
    """A whole frame that is no VICI, or not what comes now, means that charon is gone."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.frame(content)
        await caller.gone()

    async with charon(path, script), open_vici(path) as vici:
        with pytest.raises(CharonGoneError):
            await vici.request("stats")


async def test_nobody_listens(path: Path) -> None:
    """No socket, or one that a dead charon left behind: no charon answers."""
    with pytest.raises(CharonGoneError, match="no charon answers"):
        async with open_vici(path):
            pass
    with socket.socket(socket.AF_UNIX) as dead:
        dead.bind(str(path))
    with pytest.raises(CharonGoneError, match="no charon answers"):
        async with open_vici(path):
            pass


async def test_backlog_full(path: Path) -> None:
    """A charon that has stopped accepting is one that hangs, not one that is gone."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as waiting:
        listener.bind(str(path))
        listener.listen(0)
        for _ in range(8):
            channel = waiting.enter_context(socket.socket(socket.AF_UNIX))
            channel.setblocking(False)
            with contextlib.suppress(BlockingIOError):
                channel.connect(str(path))
        with pytest.raises(CharonTimeoutError, match="did not accept"):
            async with open_vici(path, SHORT) as vici:
                await vici.request("version")


async def test_requests_together(path: Path) -> None:
    """Requests are sent at once, and each has its own answer, in the order of sending; a list of
    events among them, too."""

    async def script(caller: Caller) -> None:
        for _ in range(4):
            await caller.hear()
        caller.say(Packet.CMD_RESPONSE, {"number": "1"})
        caller.say(Packet.EVENT_CONFIRM)
        caller.say(Packet.EVENT, {"one": {"uniqueid": "7"}}, event="list-sa")
        caller.say(Packet.CMD_RESPONSE)
        caller.say(Packet.CMD_RESPONSE, {"success": "no", "errmsg": "not this"})

    async with charon(path, script) as callers, open_vici(path) as vici:
        first, listed, refused = await asyncio.gather(
            vici.request("first"),
            vici.stream("list-sas", "list-sa"),
            vici.request("third"),
            return_exceptions=True,
        )

    assert (first, listed) == ({"number": b"1"}, [{"one": {"uniqueid": b"7"}}])
    assert isinstance(refused, CharonRefusedError)
    assert [name for _, name, _ in callers[0].heard] == ["first", "list-sa", "list-sas", "third"]


async def test_each_of_some_requests_has_the_whole_deadline(path: Path) -> None:
    """A request that waits for those before it is not late by that; one without answer is, and
    takes with it what was sent behind it."""

    async def script(caller: Caller) -> None:
        for _ in range(5):
            await caller.hear()
        for _ in range(3):
            await asyncio.sleep(SHORT * 2 / 3)
            caller.say(Packet.CMD_RESPONSE)
        await caller.gone()

    names = ("a", "b", "c", "d", "e")
    async with charon(path, script), open_vici(path, SHORT) as vici:
        outcomes = await asyncio.gather(*map(vici.request, names), return_exceptions=True)
        with pytest.raises(CharonTimeoutError, match="did not answer d"):
            await vici.request("later")

    assert outcomes[:3] == [{}, {}, {}]
    for late in outcomes[3:]:
        assert isinstance(late, CharonTimeoutError)
        assert "did not answer d" in late.message


@pytest.mark.parametrize(
    "message",
    [{"value": "x" * 65_536}, {str(number): "x" * 60_000 for number in range(9)}],
    ids=["a value", "all of it"],
)
async def test_too_large(path: Path, message: dict[str, str]) -> None:
    """What charon cannot take is refused and not sent, and the connection goes on."""

    async def script(caller: Caller) -> None:
        await caller.hear()
        caller.say(Packet.CMD_RESPONSE, {"version": "5"})

    async with charon(path, script), open_vici(path) as vici:
        for asked in (vici.request("load", message), vici.frames("load", "event", message)):
            with pytest.raises(CharonRefusedError, match="cannot take load: it is too large"):
                await asked
        assert await vici.request("version") == {"version": b"5"}


async def test_what_is_given_up_is_not_sent(path: Path) -> None:
    """A charon that hung gets nothing more of a connection that has failed, once it goes on."""
    goes_on, got = asyncio.Event(), 0

    async def script(caller: Caller) -> None:
        nonlocal got
        caller.reader._transport.pause_reading()  # type: ignore[attr-defined]
        await goes_on.wait()
        caller.reader._transport.resume_reading()  # type: ignore[attr-defined]
        got = len(await caller.reader.read())

    message = {str(number): "x" * 60_000 for number in range(8)}
    async with charon(path, script):
        async with open_vici(path, SHORT) as vici:
            asked = (vici.request("load", message) for _ in range(8))
            outcomes = await asyncio.gather(*asked, return_exceptions=True)
        goes_on.set()

    assert [type(one) for one in outcomes] == [CharonTimeoutError] * 8
    assert 0 < got < 8 * 8 * 60_000


async def test_what_nobody_waits_for(path: Path) -> None:
    """A request that is cancelled while it waits ends the connection: what comes next may be the
    answer to it, and is nobody else's."""

    async def script(caller: Caller) -> None:
        for _ in range(3):
            await caller.hear()
        caller.say(Packet.CMD_RESPONSE, {"of": "first"})
        caller.say(Packet.CMD_RESPONSE, {"of": "second"})
        caller.say(Packet.CMD_RESPONSE, {"of": "third"})
        await caller.gone()

    async with charon(path, script), open_vici(path) as vici:
        tasks = [asyncio.create_task(vici.request(name)) for name in ("first", "second", "third")]
        await asyncio.sleep(0)
        tasks[1].cancel()
        outcomes = await asyncio.gather(*tasks, return_exceptions=True)

    assert isinstance(outcomes[1], asyncio.CancelledError)
    assert isinstance(outcomes[2], CharonGoneError)
