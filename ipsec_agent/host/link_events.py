"""The kernel's word that links changed, here or in another network namespace on this VM.

Events of other namespaces come where they have a number here and this process has
CAP_NET_BROADCAST (netlink(7): NETLINK_LISTEN_ALL_NSID).
"""

import asyncio
import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from msgspec import Struct

from ipsec_agent.errors import KernelError
from ipsec_agent.host.rtnetlink import (
    AF_BRIDGE,
    BUFFER,
    HEADER,
    NETLINK_ADD_MEMBERSHIP,
    NETLINK_LISTEN_ALL_NSID,
    NETNSA_NSID,
    RTGEN,
    RTM_NEWLINK,
    SOL_NETLINK,
    attributes,
    number,
)

RTNLGRP_LINK, RTNLGRP_NSID = 1, 28
RTM_DELLINK = 17
RTM_NEWNSID, RTM_DELNSID = 88, 89
ROOM = 1 << 20
"""Bytes of events that the kernel keeps for us; what is too much is told as lost."""

SO_RCVBUFFORCE = 33


class News(Struct, frozen=True):
    """What was heard at once.

    Attributes:
        namespaces: numbers of other namespaces whose links changed.
        everywhere: any may have changed, as at the start, or where events were lost.
    """

    namespaces: frozenset[int] = frozenset()
    everywhere: bool = False


class LinkEvents:
    """An open ear. `hears_all` tells whether it hears of other namespaces, too."""

    def __init__(self, channel: socket.socket, *, hears_all: bool) -> None:
        self._channel = channel
        self.hears_all = hears_all

    async def heard(self) -> News:
        """Wait for events; all that have come by then are one piece of news.

        Raises:
            KernelError: the socket is of no use any more.
        """
        news = None
        while news is None:
            await self._readable()
            news = self._read()
        return news

    def _read(self) -> News | None:
        """What has come, None where nothing of it matters."""
        numbers: set[int] = set()
        lost = matters = False
        while True:
            try:
                message, ancillary, _, _ = self._channel.recvmsg(BUFFER, 64)
            except BlockingIOError:
                return News(frozenset(numbers), everywhere=lost) if matters or lost else None
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise _refusal(error) from error
                lost = True
                continue
            if _of_bridge(message):
                continue
            matters = True
            try:
                numbers.update(_origin(ancillary), _renumbered(message))
            except OSError:
                # Something happened, and what is not understood.
                lost = True

    async def _readable(self) -> None:
        loop = asyncio.get_running_loop()
        ready = loop.create_future()

        def set_ready() -> None:
            if not ready.done():
                ready.set_result(None)

        loop.add_reader(self._channel, set_ready)
        try:
            await ready
        finally:
            loop.remove_reader(self._channel)


@contextmanager
def open_link_events() -> Iterator[LinkEvents]:
    """Listen from here on.

    Raises:
        KernelError: the kernel does not let us.
    """
    with socket.socket(
        socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_NONBLOCK, socket.NETLINK_ROUTE
    ) as channel:
        hears_all = True
        try:
            with suppress(PermissionError):
                channel.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
            channel.bind((0, 0))
            try:
                channel.setsockopt(SOL_NETLINK, NETLINK_LISTEN_ALL_NSID, 1)
            except PermissionError:
                hears_all = False
            for group in (RTNLGRP_LINK, RTNLGRP_NSID):
                channel.setsockopt(SOL_NETLINK, NETLINK_ADD_MEMBERSHIP, group)
        except OSError as error:
            raise _refusal(error) from error
        yield LinkEvents(channel, hears_all=hears_all)


def _of_bridge(message: bytes) -> bool:
    """Whether a bridge tells of a port's own state, as its timers change it.

    That a link became a port, or is none any more, the kernel tells of the link as well
    (NETDEV_CHANGEUPPER in rtnetlink_event of net/core/rtnetlink.c), and before the bridge does.
    """
    if len(message) <= HEADER.size:
        return False
    kind = HEADER.unpack_from(message)[1]
    return kind in {RTM_NEWLINK, RTM_DELLINK} and message[HEADER.size] == AF_BRIDGE


def _renumbered(message: bytes) -> Iterator[int]:
    """The number that has come or gone, of a message about that; it may be used again.

    One that another namespace has is not told from ours: then one is read again for nothing.
    """
    if len(message) >= HEADER.size and HEADER.unpack_from(message)[1] in {RTM_NEWNSID, RTM_DELNSID}:
        found = dict(attributes(message[HEADER.size + RTGEN.size :]))
        if NETNSA_NSID in found:
            yield number(found[NETNSA_NSID])


def _origin(ancillary: list[tuple[int, int, bytes]]) -> Iterator[int]:
    for level, kind, data in ancillary:
        if (level, kind) == (SOL_NETLINK, NETLINK_LISTEN_ALL_NSID):
            yield number(data)


def _refusal(error: OSError) -> KernelError:
    return KernelError(
        f"listening to the links: {error.strerror}",
        code=error.errno or 0,
        hint="run as root, or with the capability CAP_NET_ADMIN",
    )
