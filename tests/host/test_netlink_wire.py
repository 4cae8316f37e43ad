"""One netlink connection, with a scripted kernel at the other end of a socket pair."""

import asyncio
import errno
import socket
import struct
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Any

import pytest

from ipsec_agent.errors import KernelError
from ipsec_agent.host.netlink_wire import DUMP_ATTEMPTS, NetlinkWire, watch
from ipsec_agent.host.pyroute2_parts import AsyncNetlinkSocket, nlmsg

ERROR = 2
DONE = 3
MULTI = 0x2
INTERRUPTED = 0x10
THING = 0x20

Answer = Callable[[int], Sequence[bytes]]


def message(kind: int, flags: int, sequence: int, body: bytes = b"") -> bytes:
    """One netlink message (linux/netlink.h: struct nlmsghdr)."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


def things(count: int, *, flags: int = 0, done_flags: int = 0) -> Answer:
    """A dump of some things."""
    return lambda sequence: [
        *(message(THING, MULTI | flags, sequence) for _ in range(count)),
        message(DONE, MULTI | done_flags, sequence, struct.pack("=i", 0)),
    ]


def error(code: int) -> Answer:
    """A refusal; code 0 is consent."""
    return lambda sequence: [
        message(ERROR, 0, sequence, struct.pack("=i", -code) + message(THING, 0, sequence))
    ]


def silence(sequence: int) -> Sequence[bytes]:
    """No answer."""
    return []


class Kernel:
    """Answers requests from a list of answers, and opens sockets to itself."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self._ends: list[socket.socket] = []
        self.sockets: list[Any] = []

    def open_socket(self) -> Any:
        """A pyroute2 socket whose other end is this kernel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, theirs):
            end.setblocking(False)
        asyncio.get_running_loop().add_reader(ours, self._answer, ours)
        self._ends.append(ours)
        self.sockets.append(AsyncNetlinkSocket(use_socket=theirs))
        return self.sockets[-1]

    def _answer(self, end: socket.socket) -> None:
        request = end.recv(65536)
        if not request:
            asyncio.get_running_loop().remove_reader(end)
            return
        (sequence,) = struct.unpack_from("=I", request, 8)
        for part in self._answers.pop(0)(sequence):
            end.send(part)

    def close(self) -> None:
        """Close our ends; pyroute2 owns the others."""
        for end in self._ends:
            asyncio.get_running_loop().remove_reader(end)
            end.close()


@asynccontextmanager
async def wired(
    *answers: Answer, deadline: float = 2.0
) -> AsyncIterator[tuple[NetlinkWire, Kernel]]:
    """A wire to a kernel that gives these answers."""
    kernel = Kernel(*answers)
    wire = NetlinkWire(kernel.open_socket, deadline=deadline, lacking="load it")
    try:
        yield wire, kernel
    finally:
        wire.close()
        await asyncio.sleep(0)  # the transport closes in the loop's next turn
        kernel.close()


async def test_dump() -> None:
    """A dump gives every part, and not the end mark."""
    async with wired(things(3)) as (wire, _):
        found = await wire.dump("reading", nlmsg, THING)

    assert [part["header"]["type"] for part in found] == [THING] * 3


@pytest.mark.parametrize("torn", [things(1, flags=INTERRUPTED), things(1, done_flags=INTERRUPTED)])
async def test_interrupted_dump_is_repeated(torn: Answer) -> None:
    """A dump that changed while it was read is read again, wherever the kernel says so."""
    async with wired(torn, torn, things(2)) as (wire, kernel):
        found = await wire.dump("reading", nlmsg, THING)

    assert len(found) == 2
    assert len(kernel.sockets) == 1


async def test_dump_that_never_settles() -> None:
    """A dump that is interrupted each time is given up, and says why."""
    torn = [things(1, flags=INTERRUPTED)] * DUMP_ATTEMPTS
    async with wired(*torn) as (wire, _):
        with pytest.raises(KernelError, match="changed during each") as caught:
            await wire.dump("reading", nlmsg, THING)

    assert caught.value.code == errno.EINTR


@pytest.mark.parametrize(
    ("code", "hint"),
    [(errno.EPERM, "as root"), (errno.EOPNOTSUPP, "load it"), (errno.ENOENT, "gone")],
)
async def test_refusal(code: int, hint: str) -> None:
    """What the kernel refuses is a KernelError with errno and hint, for requests and dumps."""
    async with wired(error(code), error(code)) as (wire, _):
        with pytest.raises(KernelError, match="doing it") as request:
            await wire.request("doing it", nlmsg(), THING)
        with pytest.raises(KernelError, match="reading") as dump:
            await wire.dump("reading", nlmsg, THING)

    for caught in (request.value, dump.value):
        assert caught.code == code
        assert hint in caught.hint


async def test_consent() -> None:
    """A request ends with the kernel's consent."""
    async with wired(error(0)) as (wire, _):
        await wire.request("doing it", nlmsg(), THING)


async def test_deadline_and_new_socket() -> None:
    """A silent kernel costs the deadline; the next request has a socket of its own."""
    async with wired(silence, things(1), deadline=0.1) as (wire, kernel):
        with pytest.raises(KernelError) as caught:
            await wire.dump("reading", nlmsg, THING)
        found = await wire.dump("reading", nlmsg, THING)

    assert caught.value.code == errno.ETIMEDOUT
    assert len(found) == 1
    assert len(kernel.sockets) == 2


async def test_one_at_a_time() -> None:
    """Requests made at once are served one after the other, on one socket."""
    async with wired(things(1), things(2), things(3)) as (wire, kernel):
        found = await asyncio.gather(*(wire.dump("reading", nlmsg, THING) for _ in range(3)))

    assert [len(each) for each in found] == [1, 2, 3]
    assert len(kernel.sockets) == 1


async def test_socket_that_cannot_be_opened() -> None:
    """A kernel without this netlink family is named as such."""

    def refuse() -> Any:
        raise OSError(errno.EPROTONOSUPPORT, "no")

    with pytest.raises(KernelError) as request:
        await NetlinkWire(refuse, lacking="load it").dump("reading", nlmsg, THING)
    with pytest.raises(KernelError) as listening:
        await watch("hearing", refuse, (), lambda: None, matters=bool, lacking="load it")

    for caught in (request.value, listening.value):
        assert caught.code == errno.EPROTONOSUPPORT
        assert caught.hint == "load it"


class Ear:
    """A socket that hears one event, and then nothing."""

    async def bind(self, _groups: int) -> None:
        """Begin."""

    def add_membership(self, group: int) -> None:
        """Hear of a group."""

    async def get(self) -> AsyncIterator[str]:
        """Hear."""
        await asyncio.sleep(0.01)
        yield "event"
        await asyncio.sleep(60)

    def close(self) -> None:
        """End."""


async def test_an_event_that_is_not_understood() -> None:
    """It counts as one that was lost: whoever listens looks, and goes on to listen."""
    woken = asyncio.Queue[int]()
    judged: list[str] = []

    def matters(event: str) -> bool:
        judged.append(event)
        raise KernelError("cannot understand", code=errno.EBADMSG)

    listening = asyncio.create_task(
        watch("hearing", Ear, (1,), lambda: woken.put_nowait(1), matters=matters)
    )
    async with asyncio.timeout(10):
        for _ in range(3):
            await woken.get()
    assert not listening.done()
    listening.cancel()
    await asyncio.wait({listening})

    assert len(judged) >= 2


def test_imports_of_pyroute2_are_few() -> None:
    """The parts that are used come without the rest of it, which takes longer than all of ours."""
    script = "import sys, ipsec_agent.agent; print(*(n for n in sys.modules if 'pyroute2' in n))"

    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "pyroute2.netlink.nlsocket" in loaded
    assert not [name for name in loaded if name.startswith(("pyroute2.ndb", "pyroute2.iproute"))]


def test_pyroute2_that_was_imported_before_is_left_as_it_is() -> None:
    """Somebody else may need all of it in the same process."""
    script = "import pyroute2, ipsec_agent.agent; print(pyroute2.NDB.__name__)"

    done = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    )

    assert done.stdout == "NDB\n"
