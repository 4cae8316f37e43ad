"""Questions to XFRM, with a scripted kernel at the other end of a socket pair."""

import asyncio
import errno
import socket
import struct
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager

import pytest

from ipsec_agent.errors import KernelError
from ipsec_agent.host.rtnetlink import DUMP_ATTEMPTS, NLM_F_ACK
from ipsec_agent.host.xfrm_wire import XfrmWire
from tests.host.test_netlink_wire import THING, message

ERROR, DONE = 2, 3
MULTI, INTERRUPTED = 0x2, 0x10

Answer = Callable[[int], Sequence[bytes]]


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


def silence(_sequence: int) -> Sequence[bytes]:
    """No answer."""
    return []


class Kernel:
    """Answers questions from a list of answers, and opens sockets to itself."""

    def __init__(self, *answers: Answer) -> None:
        self._answers = list(answers)
        self.ends: list[socket.socket] = []

    def open_socket(self) -> socket.socket:
        """A socket whose other end is this kernel."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        for end in (ours, theirs):
            end.setblocking(False)
        asyncio.get_running_loop().add_reader(ours, self._answer, ours)
        self.ends.append(ours)
        return theirs

    def _answer(self, end: socket.socket) -> None:
        if not end.recv(65536):
            asyncio.get_running_loop().remove_reader(end)
            return
        for part in self._answers.pop(0)(1):
            end.send(part)

    def close(self) -> None:
        """Close all ends."""
        for end in self.ends:
            asyncio.get_running_loop().remove_reader(end)
            end.close()


@asynccontextmanager
async def wired(*answers: Answer, deadline: float = 2.0) -> AsyncIterator[tuple[XfrmWire, Kernel]]:
    """A wire to a kernel that gives these answers."""
    kernel = Kernel(*answers)
    wire = XfrmWire(kernel.open_socket, deadline=deadline)
    try:
        yield wire, kernel
    finally:
        wire.close()
        kernel.close()


async def test_dump() -> None:
    """A dump gives every part without its header, and not the end mark."""
    parts = [message(THING, 2, 1, bytes([number]) * 4) for number in range(3)]

    async with wired(lambda _: [parts[0] + parts[1], parts[2], *things(0)(1)]) as (wire, _):
        found = await wire.dump("reading", THING)

    assert found == [bytes([number]) * 4 for number in range(3)]


@pytest.mark.parametrize("torn", [things(1, flags=INTERRUPTED), things(1, done_flags=INTERRUPTED)])
async def test_interrupted_dump_is_repeated(torn: Answer) -> None:
    """A dump that changed while it was read is read again, wherever the kernel says so."""
    async with wired(torn, torn, things(2)) as (wire, kernel):
        found = await wire.dump("reading", THING)

    assert len(found) == 2
    assert len(kernel.ends) == 1


async def test_dump_that_never_settles() -> None:
    """A dump that is interrupted each time is given up, and says why."""
    async with wired(*[things(1, flags=INTERRUPTED)] * DUMP_ATTEMPTS) as (wire, _):
        with pytest.raises(KernelError, match="changed during each") as caught:
            await wire.dump("reading", THING)

    assert caught.value.code == errno.EINTR


def ended_by(code: int) -> Answer:
    """A dump that the kernel ends with an error."""
    return lambda _: [message(THING, 2, 1), message(DONE, 2, 1, struct.pack("=i", -code))]


@pytest.mark.parametrize(
    ("answer", "code", "hint"),
    [
        (error(errno.EPERM), errno.EPERM, "as root"),
        (error(errno.ECONNREFUSED), errno.ECONNREFUSED, "xfrm_user"),
        (ended_by(errno.EPERM), errno.EPERM, "as root"),
        (lambda _: [message(2, 0, 1, b"")], errno.EBADMSG, "does not understand"),
    ],
)
async def test_refusal(answer: Answer, code: int, hint: str) -> None:
    """What the kernel refuses is a KernelError with errno and hint; the next question is served."""
    async with wired(answer, things(1)) as (wire, kernel):
        with pytest.raises(KernelError, match="reading") as caught:
            await wire.dump("reading", THING)

        assert len(await wire.dump("reading", THING)) == 1
        assert len(kernel.ends) == 2

    assert caught.value.code == code
    assert hint in caught.value.hint


async def test_one_answer() -> None:
    """A question has the body of its answer, and consent has none."""
    async with wired(lambda _: [message(THING, 0, 1, b"body")], error(0)) as (wire, _):
        assert await wire.ask("asking", THING, b"what") == b"body"
        assert await wire.ask("doing it", THING, b"that", NLM_F_ACK) == b""


async def test_deadline_and_new_socket() -> None:
    """A silent kernel costs the deadline; the next question has a socket of its own."""
    async with wired(silence, things(1), deadline=0.1) as (wire, kernel):
        with pytest.raises(KernelError) as caught:
            await wire.dump("reading", THING)
        found = await wire.dump("reading", THING)

    assert caught.value.code == errno.ETIMEDOUT
    assert len(found) == 1
    assert len(kernel.ends) == 2


async def test_a_question_that_nobody_waits_for() -> None:
    """Its answer is not taken for that of the next one."""
    async with wired(silence, things(2)) as (wire, kernel):
        asking = asyncio.create_task(wire.dump("reading", THING))
        await asyncio.sleep(0.01)
        asking.cancel()
        await asyncio.wait({asking})

        assert len(await wire.dump("reading", THING)) == 2

    assert len(kernel.ends) == 2


async def test_one_at_a_time() -> None:
    """Questions asked at once are served one after the other, on one socket."""
    async with wired(things(1), things(2), things(3)) as (wire, kernel):
        found = await asyncio.gather(*(wire.dump("reading", THING) for _ in range(3)))

    assert [len(each) for each in found] == [1, 2, 3]
    assert len(kernel.ends) == 1
