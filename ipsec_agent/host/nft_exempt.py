"""Tells nf_tables which links the guard exempts, without the program nft.

A link that comes to lead out must be guarded as soon as the kernel says so, and to start a program
takes longer than all the rest. Formats: linux/netfilter/nfnetlink.h, nf_tables.h.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterable

from ipsec_agent.core.model import GUARD_TABLE, LinkId
from ipsec_agent.errors import KernelError

DEADLINE = 5.0
NETLINK_NETFILTER = 12
SUBSYSTEM = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NEW_ELEMENTS, DELETE_ELEMENTS = SUBSYSTEM << 8 | 12, SUBSYSTEM << 8 | 14
NFPROTO_UNSPEC, NFPROTO_INET = 0, 1
REQUEST, ACK, CREATE = 0x1, 0x4, 0x400
TABLE, SET, ELEMENTS = 1, 2, 3
ELEMENT, KEY, VALUE = 1, 1, 1
NESTED = 0x8000
NLMSG_ERROR = 2
HEADER, FAMILY, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("!BBH"), struct.Struct("=HH")
IFNAMSIZ = 16
HIGHEST = 4095
"""The largest errno (linux/err.h)."""

AT_ONCE = 500
"""Elements in one message: an attribute holds 64 KiB."""

LINKS, PORTS = "exempt", "overlay_ports"


def set_exempt(links: Iterable[LinkId], ports: Iterable[int] | None = None) -> None:
    """Put these in the place of what is in the guard's sets, in one transaction.

    Args:
        links: the exempt ones.
        ports: UDP ports of the tunnels among them; None leaves those that are there.

    Raises:
        KernelError: the kernel refuses; there may be no guard.
    """
    messages = _replacement(LINKS, map(_link, links))
    if ports is not None:
        messages += _replacement(PORTS, (struct.pack("!H", port) for port in ports))
    try:
        _perform(messages)
    except OSError as error:
        raise KernelError(
            f"cannot change the guard's exempt links: {error.strerror or error}",
            code=error.errno or 0,
            hint="run as root, or with the capability CAP_NET_ADMIN"
            if error.errno == errno.EPERM
            else "the guard may be gone; the agent loads it again",
        ) from error


def _replacement(name: str, values: Iterable[bytes]) -> list[tuple[int, int, bytes]]:
    """The messages that put these values in the place of a set's elements."""
    elements = [_nested(ELEMENT, _nested(KEY, _attribute(VALUE, value))) for value in values]
    parts = [elements[at : at + AT_ONCE] for at in range(0, len(elements), AT_ONCE)]
    of_the_set = _text(TABLE, GUARD_TABLE) + _text(SET, name)
    # Without elements it empties the set.
    return [(DELETE_ELEMENTS, 0, of_the_set)] + [
        (NEW_ELEMENTS, CREATE, of_the_set + _nested(ELEMENTS, b"".join(part))) for part in parts
    ]


def _perform(messages: list[tuple[int, int, bytes]]) -> None:
    batch = _message(BATCH_BEGIN, REQUEST, 0, b"", NFPROTO_UNSPEC, SUBSYSTEM)
    for number, (kind, flags, body) in enumerate(messages, 1):
        last = ACK if number == len(messages) else 0
        batch += _message(kind, REQUEST | flags | last, number, body, NFPROTO_INET, 0)
    batch += _message(BATCH_END, REQUEST, 0, b"", NFPROTO_UNSPEC, SUBSYSTEM)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER) as channel:
        channel.settimeout(DEADLINE)
        channel.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, max(len(batch) * 2, 1 << 16))
        channel.bind((0, 0))
        channel.send(batch)
        # Whatever is refused is told before the last one is acknowledged, which is then refused.
        at_end = False
        while not at_end:
            answer = channel.recv(1 << 16)
            at_end = _judge(answer, len(messages))


def _judge(answer: bytes, last: int) -> bool:
    """Whether the last message is acknowledged.

    Raises:
        OSError: one is refused, and with it all of them.
    """
    at = 0
    while at + HEADER.size + 4 <= len(answer):
        length, kind, _, number, _ = HEADER.unpack_from(answer, at)
        if kind == NLMSG_ERROR:
            (code,) = struct.unpack_from("=i", answer, at + HEADER.size)
            if code:
                raise OSError(-code, os.strerror(min(-code, HIGHEST)))
            if number == last:
                return True
        at += max(-(-length // 4) * 4, HEADER.size)
    return False


def _link(link: LinkId) -> bytes:
    # Each part of a concatenation fills whole registers of 4 bytes.
    return struct.pack("=I", link.index) + link.name.encode().ljust(IFNAMSIZ, b"\0")


def _message(  # noqa: PLR0917 - the fields of the two headers
    kind: int, flags: int, number: int, body: bytes, family: int, resource: int
) -> bytes:
    length = HEADER.size + FAMILY.size + len(body)
    return HEADER.pack(length, kind, flags, number, 0) + FAMILY.pack(family, 0, resource) + body


def _text(kind: int, text: str) -> bytes:
    return _attribute(kind, text.encode() + b"\0")


def _nested(kind: int, body: bytes) -> bytes:
    return _attribute(kind | NESTED, body)


def _attribute(kind: int, value: bytes) -> bytes:
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)
