"""Events of a netlink socket, with a scripted kernel at the other end of a socket pair."""

import asyncio
import errno
import os
import socket
import struct
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest

from ipsec_agent.errors import KernelError
from ipsec_agent.host.netlink_wire import AT_ONCE, watch

THING = 0x20


def message(kind: int, flags: int, sequence: int, body: bytes = b"") -> bytes:
    """One netlink message (linux/netlink.h: struct nlmsghdr)."""
    return struct.pack("=IHHII", 16 + len(body), kind, flags, sequence, 0) + body


@asynccontextmanager
async def listening(
    matters: Callable[[int, bytes], bool],
) -> AsyncIterator[tuple[asyncio.Queue[int], list[socket.socket]]]:
    """The wakes of a watch, the first of which is over, and the kernel's ends, the newest last."""
    woken, ends = asyncio.Queue[int](), list[socket.socket]()

    def open_socket() -> socket.socket:
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        ends.append(ours)
        return theirs

    task = asyncio.create_task(
        watch(
            "hearing",
            open_socket,
            lambda: woken.put_nowait(1),
            matters=matters,
        )
    )
    try:
        async with asyncio.timeout(10):
            await woken.get()
            yield woken, ends
            assert not task.done()
    finally:
        task.cancel()
        await asyncio.wait({task})
        for end in ends:
            end.close()


async def test_a_burst_wakes_once() -> None:
    """What comes together has one wake, however long; what does not matter has none."""
    judged, last = list[bytes](), asyncio.Event()

    def matters(_kind: int, body: bytes) -> bool:
        judged.append(body)
        if body == b"last":
            last.set()
        return body == b"some"

    async with listening(matters) as (woken, ends):
        ends[0].send(message(THING, 0, 0, b"none") * 2)
        for _ in range(AT_ONCE // 32):
            ends[0].send(message(THING, 0, 0, b"none") + message(THING, 0, 0, b"some"))
        await woken.get()
        ends[0].send(message(THING, 0, 0, b"last"))
        await asyncio.wait_for(last.wait(), 10)

        assert woken.empty()
        assert judged.count(b"some") == 1


async def test_an_event_that_is_not_understood() -> None:
    """It counts as one that was lost: whoever listens looks, and goes on to listen."""

    def matters(_kind: int, _body: bytes) -> bool:
        raise KernelError("cannot understand", code=errno.EBADMSG)

    async with listening(matters) as (woken, ends):
        ends[0].send(message(THING, 0, 0))
        await woken.get()

        assert len(ends) == 2


async def test_less_than_a_header() -> None:
    """It is passed over, and the next event is heard."""
    async with listening(lambda _kind, _body: True) as (woken, ends):
        ends[0].send(b"\1")
        ends[0].send(message(THING, 0, 0))
        await woken.get()

        assert len(ends) == 1


async def test_a_kernel_that_does_not_let_listen() -> None:
    """It is told at once, with what to do."""

    def refuse() -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    with pytest.raises(KernelError) as caught:
        await watch("hearing", refuse, lambda: None, matters=lambda *_: True, lacking="load it")

    assert caught.value.code == errno.EPROTONOSUPPORT
    assert caught.value.hint == "load it"


async def test_events_that_were_lost() -> None:
    """Whoever listens looks, and goes on to listen with another ear."""
    woken, ears = asyncio.Queue[int](), list[socket.socket]()

    def open_socket() -> socket.socket:
        # The kernel tells a loss by an error of the socket: here there is none of its own.
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
        theirs.setblocking(False)
        ears.append(ours)
        return theirs if len(ears) > 1 else Lossy(theirs.family, theirs.type, 0, theirs.detach())

    listening = asyncio.create_task(
        watch("hearing", open_socket, lambda: woken.put_nowait(1), matters=lambda *_: True)
    )
    async with asyncio.timeout(10):
        await woken.get()
        ears[0].send(b"1")
        await woken.get()
    assert len(ears) == 2
    listening.cancel()
    await asyncio.wait({listening})
    for end in ears:
        end.close()


class Lossy(socket.socket):
    """A socket on which events were lost."""

    def recv(self, _size: int, _flags: int = 0) -> bytes:
        """Tell so."""
        super().recv(1)
        raise OSError(errno.ENOBUFS, os.strerror(errno.ENOBUFS))
