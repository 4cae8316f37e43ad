"""The kernel's word that nftables changed: its netlink group, and the messages on it.

Formats: linux/netlink.h, linux/netfilter/nfnetlink.h and linux/netfilter/nf_tables.h. Packets that
add elements to a set cause no message; a transaction ends with one that names who made it.
"""

import socket
import struct
from collections.abc import Iterator

from msgspec import Struct

from ipsec_agent.errors import KernelError

DATAGRAM = 131072
"""Bytes that hold any message batch of the kernel's (nf_tables sends up to 32 KiB)."""

_NETLINK_NETFILTER = 12
_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_GROUP_NFTABLES = 7
_SUBSYSTEM = 10
_NEWGEN = 15
_FLOWTABLES = frozenset({22, 24})
"""NFT_MSG_NEWFLOWTABLE and DELFLOWTABLE: one of anybody's takes packets past every table."""

_HEADERS = 20  # nlmsghdr and nfgenmsg
_TABLE_NAME = 1  # the same number in every message about a part of a table
_GEN_PID = 2
_TYPE_MASK = 0x3FFF


def open_events() -> socket.socket:
    """A non-blocking socket on which the kernel tells of changes in this network namespace.

    Raises:
        KernelError: the kernel has no nf_tables, or refuses.
    """
    try:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, _NETLINK_NETFILTER)
    except OSError as error:
        raise _refused(error) from error
    try:
        events.setblocking(False)
        events.bind((0, 0))
        events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
    except OSError as error:
        events.close()
        raise _refused(error) from error
    return events


class Transactions(Struct):
    """Puts messages together to transactions; one may span several datagrams.

    Attributes:
        table: the one that counts; so does a flowtable, wherever it is.
    """

    table: str
    _touched: bool = False

    def feed(self, datagram: bytes) -> Iterator[int]:
        """Who made the transactions that end here and touched the table, or a flowtable.

        Each by its process id.
        """
        for kind, attributes in _messages(datagram):
            if kind == _NEWGEN:
                if self._touched:
                    self._touched = False
                    yield int.from_bytes(attributes.get(_GEN_PID, b""), "big")
            elif kind in _FLOWTABLES or attributes.get(_TABLE_NAME) == self.table.encode() + b"\0":
                self._touched = True


def _messages(datagram: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Message number and attributes of each nf_tables message."""
    start = 0
    while start + _HEADERS <= len(datagram):
        length, kind = struct.unpack_from("=IH", datagram, start)
        if length < _HEADERS:
            return
        if kind >> 8 == _SUBSYSTEM:
            yield kind & 0xFF, _attributes(datagram[start + _HEADERS : start + length])
        start += (length + 3) & ~3


def _attributes(payload: bytes) -> dict[int, bytes]:
    found: dict[int, bytes] = {}
    start = 0
    while start + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, start)
        if length < 4:  # noqa: PLR2004 - the header's own size
            break
        found[kind & _TYPE_MASK] = payload[start + 4 : start + length]
        start += (length + 3) & ~3
    return found


def _refused(error: OSError) -> KernelError:
    return KernelError(
        f"the kernel reports no changes of nftables: {error.strerror}",
        code=error.errno or 0,
        hint="run as root; a kernel without nf_tables needs agent.guard: none",
    )
