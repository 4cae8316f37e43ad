"""Netlink sockets in the agent's loop: events that ring a bell.

Without pyroute2, which makes objects and turns of the loop of each message: 1,000 events were heard
in 7 ms of CPU instead of 48 (a flush of the policies of 400 subnets and their return are 2,000),
and importing its sockets took 17 ms and 2.6 MiB.
"""

import asyncio
import contextlib
import errno
import os
import socket
from collections.abc import Callable, Sequence

from ipsec_agent.errors import KernelError
from ipsec_agent.host.netlink_errors import translated
from ipsec_agent.host.rtnetlink import BUFFER, messages
from ipsec_agent.host.understood import as_told

EAR = 1 << 20
"""Bytes of events that may wait, as far as net.core.rmem_max allows."""

AT_ONCE = 256
"""Datagrams of a burst after which others of this process have their turn."""


def open_netlink(family: int, groups: Sequence[int] = ()) -> socket.socket:
    """A socket that blocks nobody, in the network namespace of this thread.

    Args:
        family: NETLINK_*.
        groups: multicast groups that it hears, from 1 to 32.

    Raises:
        OSError: the kernel has no such family, or does not let us listen.
    """
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, family)
    try:
        channel.setblocking(False)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, EAR)
        channel.bind((0, sum(1 << (group - 1) for group in groups)))
    except OSError:
        channel.close()
        raise
    return channel


async def watch(
    doing: str,
    open_ear: Callable[[], socket.socket],
    wake: Callable[[], None],
    *,
    matters: Callable[[int, bytes], bool],
    lacking: str = "",
) -> None:
    """Call `wake` when something that matters has come, until cancelled.

    It is called at the start, too, and after events that were lost or are not understood: what
    happened before the ear was open is unknown.

    Args:
        doing: what is being done, for error messages.
        open_ear: makes a socket that hears; it may raise OSError.
        matters: is asked of an event by its message type and its body.
        lacking: the hint for a kernel that does not know this netlink family.

    Raises:
        KernelError: the kernel does not let us listen.
    """
    while True:
        with translated(doing, lacking):
            ear = open_ear()
        with ear:
            wake()
            try:
                with translated(doing):
                    await _hear(ear, wake, matters)
            except KernelError as error:
                if error.code not in {errno.ENOBUFS, errno.EBADMSG}:
                    raise


async def _hear(
    ear: socket.socket, wake: Callable[[], None], matters: Callable[[int, bytes], bool]
) -> None:
    while True:
        burst = [await received(ear)]
        with contextlib.suppress(BlockingIOError):
            while len(burst) < AT_ONCE:
                burst.append(ear.recv(BUFFER))
        with as_told():
            # One that matters is enough: who is woken reads all of it again.
            matter = any(matters(kind, body) for part in burst for kind, _, body in messages(part))
        if matter:
            wake()


async def received(channel: socket.socket) -> bytes:
    """The next datagram.

    Raises:
        OSError: there will be none.
    """
    # What is there is received without a wait: a deadline, an end and others have their turn.
    await asyncio.sleep(0)
    part = await asyncio.get_running_loop().sock_recv(channel, BUFFER)
    if not part:
        raise OSError(errno.ECONNRESET, os.strerror(errno.ECONNRESET))
    return part
