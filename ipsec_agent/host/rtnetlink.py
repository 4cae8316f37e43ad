"""Requests to the kernel's rtnetlink on a socket of one's own: few, small, and without a library.

What is asked here is asked of hundreds of containers in one pass, or before anything else after an
event; pyroute2 takes about a millisecond for each link. It blocks: call it in a thread.
Formats: linux/netlink.h, linux/rtnetlink.h, linux/if_link.h, linux/net_namespace.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager

from ipsec_agent.host.understood import as_told

DEADLINE = 5.0
"""Seconds for each answer."""

DUMP_ATTEMPTS = 10
HEADER, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("=HH")
IFINFO, RTGEN, NDMSG = struct.Struct("=BxHiII"), struct.Struct("=Bxxx"), struct.Struct("=BxxxiHBB")

NLM_F_REQUEST, NLM_F_ACK, NLM_F_DUMP_INTR, NLM_F_DUMP = 1, 4, 0x10, 0x300
NLMSG_ERROR, NLMSG_DONE, NLA_TYPE_MASK = 2, 3, 0x3FFF
AF_BRIDGE = 7
RTM_NEWLINK, RTM_GETLINK, RTM_NEWNEIGH, RTM_GETNEIGH, RTM_GETNSID = 16, 18, 28, 30, 90
RTM_GETROUTE = 26
SOL_NETLINK, NETLINK_ADD_MEMBERSHIP = 270, 1
NETLINK_LISTEN_ALL_NSID, NETLINK_GET_STRICT_CHK = 8, 12
NETNSA_NSID, NETNSA_FD = 1, 3

ROUTE = struct.Struct("=BBBBBBBBI")
"""`struct rtmsg`: family, lengths of destination and source, tos, table, protocol, scope, type,
flags."""

FIXED = {
    RTM_GETLINK: IFINFO.size,
    RTM_GETROUTE: ROUTE.size,
    RTM_GETNEIGH: NDMSG.size,
    RTM_GETNSID: RTGEN.size,
}
"""Bytes before the attributes of an answer."""

BUFFER = 1 << 16
"""Bytes that hold any part of an answer (netlink(7): the kernel sends at most 32 KiB)."""


@contextmanager
def open_rtnetlink() -> Iterator[socket.socket]:
    """A socket in the network namespace of this thread.

    The kernel heeds all that a request says, or refuses it (strict checking).
    """
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE) as channel:
        channel.settimeout(DEADLINE)
        channel.setsockopt(SOL_NETLINK, NETLINK_GET_STRICT_CHK, 1)
        channel.bind((0, 0))
        yield channel


def ask(channel: socket.socket, kind: int, body: bytes, flags: int = 0) -> dict[int, bytes]:
    """The attributes of the answer; none of an acknowledgement.

    Raises:
        OSError: the kernel refuses, is too late, or answers what is not understood.
    """
    channel.send(request(kind, body, flags))
    with as_told():
        return dict(attributes(answer_to(channel.recv(BUFFER))[FIXED.get(kind, 0) :]))


def dump(channel: socket.socket, kind: int, body: bytes) -> list[bytes]:
    """Everything of one kind, each as its fixed part and its attributes.

    Raises:
        OSError: the kernel refuses, is too late, answers what is not understood, or what is read
            changes time and again.
    """
    for _ in range(DUMP_ATTEMPTS):
        channel.send(request(kind, body, NLM_F_DUMP))
        with as_told():
            found, interrupted = _whole(channel)
        if not interrupted:
            return found
    raise never_settled()


def never_settled() -> OSError:
    """What is raised of a dump that changed during each reading."""
    return OSError(errno.EINTR, f"changed during each of {DUMP_ATTEMPTS} readings")


def _whole(channel: socket.socket) -> tuple[list[bytes], bool]:
    listing = Listing()
    while not listing.take(channel.recv(BUFFER)):
        pass
    return listing.found, listing.interrupted


class Listing:
    """What a dump has told so far.

    Attributes:
        found: each message without its header.
        interrupted: it changed meanwhile.
    """

    def __init__(self) -> None:
        self.found: list[bytes] = []
        self.interrupted = False

    def take(self, part: bytes) -> bool:
        """Take what came next; whether that was the end.

        Raises:
            OSError: the kernel refuses, or ended the dump with an error.
        """
        for kind, flags, body in messages(part):
            if flags & NLM_F_DUMP_INTR:
                self.interrupted = True
            if kind in {NLMSG_ERROR, NLMSG_DONE}:
                # The body of the latter is the error that ended the dump, if one did.
                _raise_refusal(body)
                if kind == NLMSG_DONE:
                    return True
            else:
                self.found.append(body)
        return False


def messages(part: bytes) -> Iterator[tuple[int, int, bytes]]:
    """Type, flags and body of each message of a datagram."""
    at = 0
    while at + HEADER.size <= len(part):
        length, kind, flags, _, _ = HEADER.unpack_from(part, at)
        yield kind, flags, part[at + HEADER.size : at + length]
        at += max(-(-length // 4) * 4, HEADER.size)


def answer_to(answer: bytes) -> bytes:
    """The body of an answer, b"" of an acknowledgement.

    Raises:
        OSError: it is a refusal, or is not understood.
    """
    with as_told():
        length, kind, *_ = HEADER.unpack_from(answer)
        body = answer[HEADER.size : length]
        if kind == NLMSG_ERROR:
            _raise_refusal(body)
            return b""
        return body


def request(kind: int, body: bytes, flags: int = 0) -> bytes:
    """The message that asks for something."""
    return HEADER.pack(HEADER.size + len(body), kind, NLM_F_REQUEST | flags, 1, 0) + body


def _raise_refusal(body: bytes) -> None:
    (code,) = struct.unpack_from("=i", body)
    if code:
        raise OSError(-code, os.strerror(-code))


def attribute(kind: int, value: int) -> bytes:
    """An attribute that holds a number of 32 bits."""
    return ATTRIBUTE.pack(ATTRIBUTE.size + 4, kind) + struct.pack("=i", value)


def attributes(raw: bytes) -> Iterator[tuple[int, bytes]]:
    """Kind and value of each attribute."""
    at = 0
    while at + ATTRIBUTE.size <= len(raw):
        length, kind = ATTRIBUTE.unpack_from(raw, at)
        if length < ATTRIBUTE.size:
            return
        yield kind & NLA_TYPE_MASK, raw[at + ATTRIBUTE.size : at + length]
        at += -(-length // 4) * 4


def number(raw: bytes) -> int:
    """An attribute's value as a signed number of 32 bits.

    Raises:
        OSError: it is shorter.
    """
    with as_told():
        return int(struct.unpack_from("=i", raw)[0])
