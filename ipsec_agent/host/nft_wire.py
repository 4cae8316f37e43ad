"""The language of nf_tables: its messages, made, sent and taken apart, without the program nft.

Formats: linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h.
"""

import contextlib
import os
import socket
import struct
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Self

DEADLINE = 5.0
DATAGRAM = 131072
"""Bytes that hold any message batch of the kernel's (nf_tables sends up to 32 KiB)."""

NETLINK_NETFILTER = 12
SUBSYSTEM = 10
BATCH_BEGIN, BATCH_END = 0x10, 0x11
NFPROTO_UNSPEC, NFPROTO_INET, NFPROTO_NETDEV = 0, 1, 5
REQUEST, ACK, DUMP, CREATE, APPEND = 0x1, 0x4, 0x300, 0x400, 0x800
DUMP_INTERRUPTED = 0x10
NLMSG_ERROR, NLMSG_DONE = 2, 3
NESTED, TYPE = 0x8000, 0x3FFF
HEADER, FAMILY, ATTRIBUTE = struct.Struct("=IHHII"), struct.Struct("!BBH"), struct.Struct("=HH")
_SNDBUFFORCE = 32
HIGHEST = 4095
"""The largest errno (linux/err.h)."""

Message = tuple[int, int, bytes]
"""Number, flags and attributes of a message."""


class InterruptedDumpError(Exception):
    """The tables changed while the kernel listed them."""


class Channel:
    """A socket for requests, one after the other; its `with` closes it.

    It is of the network namespace of the thread that opens it.

    Args:
        deadline: seconds that all of its requests may take together.

    Raises:
        OSError: the kernel has no nfnetlink, or refuses.
    """

    def __init__(self, deadline: float = DEADLINE) -> None:
        self._ends = time.monotonic() + deadline
        self._number = 0
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
        try:
            self._socket.bind((0, 0))
        except OSError:
            self._socket.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Close it; once more is no error."""
        self._socket.close()

    def ask(
        self, kind: int, body: bytes, family: int, *, dump: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """Family and attributes of what the kernel answers: one thing, or all that a dump lists.

        Raises:
            OSError: it refuses (ENOENT: there is none), or is late.
            InterruptedDumpError: the tables have changed meanwhile.
        """
        self._number += 1
        flags = REQUEST | (DUMP if dump else 0)
        request = message(SUBSYSTEM << 8 | kind, flags, self._number, body, family, 0)
        self._send(request)
        while True:
            for answer, flagged, number, payload in parts(self._receive()):
                if number != self._number:
                    continue
                if flagged & DUMP_INTERRUPTED:
                    raise InterruptedDumpError
                if answer == NLMSG_DONE:
                    return
                if answer == NLMSG_ERROR:
                    raise _refused(payload)
                yield payload[0], payload[FAMILY.size :]
                if not dump:
                    return

    def perform(self, messages: Sequence[Message], family: int = NFPROTO_INET) -> None:
        """Make changes in one transaction: all of them or none.

        Raises:
            OSError: the kernel refuses one, or is late.
        """
        batch = [message(BATCH_BEGIN, REQUEST, 0, b"", NFPROTO_UNSPEC, SUBSYSTEM)]
        for number, (kind, flags, body) in enumerate(messages, 1):
            last = ACK if number == len(messages) else 0
            batch.append(
                message(SUBSYSTEM << 8 | kind, REQUEST | flags | last, number, body, family, 0)
            )
        batch.append(message(BATCH_END, REQUEST, 0, b"", NFPROTO_UNSPEC, SUBSYSTEM))
        whole = b"".join(batch)
        # It is one datagram, however long.
        make_room(self._socket, socket.SO_SNDBUF, _SNDBUFFORCE, max(len(whole) * 2, 1 << 16))
        self._send(whole)
        # Whatever is refused is told before the last one is acknowledged, which is then refused.
        at_end = False
        while not at_end:
            at_end = _judge(self._receive(), len(messages))

    def _send(self, batch: bytes) -> None:
        self._socket.settimeout(self._left())
        self._socket.send(batch)

    def _receive(self) -> bytes:
        self._socket.settimeout(self._left())
        return self._socket.recv(DATAGRAM)

    def _left(self) -> float:
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        return left


def make_room(channel: socket.socket, option: int, force: int, size: int) -> None:
    """Have a socket hold so many bytes: at least as many as everybody may, in a user namespace."""
    channel.setsockopt(socket.SOL_SOCKET, option, size)
    with contextlib.suppress(PermissionError):
        channel.setsockopt(socket.SOL_SOCKET, force, size)


def parts(datagram: bytes) -> Iterator[tuple[int, int, int, bytes]]:
    """Number, flags, sequence number and payload of each message."""
    at = 0
    while at + HEADER.size <= len(datagram):
        length, kind, flags, number, _ = HEADER.unpack_from(datagram, at)
        if length < HEADER.size or at + length > len(datagram):
            return
        yield kind, flags, number, datagram[at + HEADER.size : at + length]
        at += (length + 3) & ~3


def attributes(payload: bytes) -> Iterator[tuple[int, bytes]]:
    """Number and value of each attribute.

    Raises:
        ValueError: one is longer than what holds it.
    """
    at, end = 0, len(payload)
    while at + ATTRIBUTE.size <= end:
        length, kind = ATTRIBUTE.unpack_from(payload, at)
        if length < ATTRIBUTE.size or at + length > end:
            raise ValueError(f"an attribute of {length} bytes")
        yield kind & TYPE, payload[at + ATTRIBUTE.size : at + length]
        at += (length + 3) & ~3


def message(  # noqa: PLR0917 - the fields of the two headers
    kind: int, flags: int, number: int, body: bytes, family: int, resource: int
) -> bytes:
    """A message with its two headers."""
    length = HEADER.size + FAMILY.size + len(body)
    padding = bytes(-length % 4)
    return (
        HEADER.pack(length, kind, flags, number, 0)
        + FAMILY.pack(family, 0, resource)
        + (body + padding)
    )


def text(kind: int, value: str) -> bytes:
    """An attribute that is a string."""
    return attribute(kind, value.encode() + b"\0")


def nested(kind: int, body: bytes) -> bytes:
    """An attribute of attributes."""
    return attribute(kind | NESTED, body)


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute."""
    length = ATTRIBUTE.size + len(value)
    return ATTRIBUTE.pack(length, kind) + value + bytes(-length % 4)


def joined(found: Mapping[int, bytes]) -> bytes:
    """Attributes, one after the other."""
    return b"".join(attribute(kind, value) for kind, value in found.items())


def _refused(payload: bytes) -> OSError:
    (code,) = struct.unpack_from("=i", payload)
    return OSError(-code, os.strerror(min(-code, HIGHEST)))


def _judge(answer: bytes, last: int) -> bool:
    """Whether the last message is acknowledged.

    Raises:
        OSError: one is refused, and with it all of them.
    """
    for kind, _, number, payload in parts(answer):
        if kind == NLMSG_ERROR:
            if any(payload[:4]):
                raise _refused(payload)
            if number == last:
                return True
    return False
