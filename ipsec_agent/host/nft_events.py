"""The kernel's word that nftables changed: its netlink group, and the messages on it.

Packets that
add elements to a set cause no message; a transaction ends with one that names who made it.
"""

import collections
import contextlib
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from msgspec import Struct

from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_wire import (
    FAMILY,
    NETLINK_NETFILTER,
    SUBSYSTEM,
    attributes,
    make_room,
    parts,
)

_SOL_NETLINK = 270
_ADD_MEMBERSHIP = 1
_GROUP_NFTABLES = 7
_NEWGEN = 15
_FLOWTABLES = frozenset({22, 24})
"""NFT_MSG_NEWFLOWTABLE and DELFLOWTABLE: one of anybody's takes packets past every table."""

_TABLE_NAME = 1  # the same number in every message about a part of a table
_GEN_ID, _GEN_PID = 1, 2
_RCVBUFFORCE = 33

INITIAL = "pid:[4026531836]"
"""The first namespace of processes, which has this number on every kernel (PROC_PID_INIT_INO)."""

HEARD_WITHIN = 30.0
"""Seconds after which an author is not waited for any more: another process may have its number."""


def open_events(*, room: int = 0) -> socket.socket:
    """A non-blocking socket on which the kernel tells of changes in this network namespace.

    Args:
        room: bytes of messages that it keeps; 0 for as many as every socket does.

    Raises:
        KernelError: the kernel has no nf_tables, or refuses.
    """
    try:
        events = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_NETFILTER)
    except OSError as error:
        raise _refused(error) from error
    try:
        events.setblocking(False)
        if room:
            make_room(events, socket.SO_RCVBUF, _RCVBUFFORCE, room)
        events.bind((0, 0))
        events.setsockopt(_SOL_NETLINK, _ADD_MEMBERSHIP, _GROUP_NFTABLES)
    except OSError as error:
        events.close()
        raise _refused(error) from error
    return events


class Authors:
    """Who of this agent's makes transactions: its threads, and the programs that it starts.

    Each number is for one transaction, so that who gets it later is a stranger. The kernel names
    everybody by his number in the first namespace of processes. In another one nobody is known by
    his number there, and a stranger may have the same: all are strangers then.

    Args:
        namespace: the link that names this process's.
    """

    def __init__(self, namespace: Path = Path("/proc/self/ns/pid")) -> None:
        self._expected: collections.deque[tuple[int, float]] = collections.deque(maxlen=64)
        self._known = False
        with contextlib.suppress(OSError):
            self._known = str(namespace.readlink()) == INITIAL

    def expect(self, number: int) -> None:
        """Of a thread or process that is about to make a transaction."""
        self._expected.append((number, time.monotonic() + HEARD_WITHIN))

    def made(self, number: int) -> bool:
        """Whether a transaction of this author is one that was expected; it is no longer."""
        now = time.monotonic()
        for one in self._expected:
            if one[0] == number and now < one[1]:
                self._expected.remove(one)
                return self._known
        return False


class Transactions(Struct):
    """Puts messages together to transactions; one may span several datagrams.

    Attributes:
        table: the one that counts; so does a flowtable, wherever it is.
        generation: of all tables, after the last transaction; 0 before the first.
    """

    table: str
    generation: int = 0
    _touched: bool = False

    def reached(self, generation: int) -> bool:
        """Whether everything up to a generation was heard; their numbers go round."""
        return bool(self.generation) and (self.generation - generation) % 2**32 < 2**31

    def feed(self, datagram: bytes) -> Iterator[int]:
        """Who made the transactions that end here and touched the table, or a flowtable.

        Each by its process id.
        """
        for kind, found in _messages(datagram):
            if kind == _NEWGEN:
                self.generation = int.from_bytes(found.get(_GEN_ID, b""))
                if self._touched:
                    self._touched = False
                    yield int.from_bytes(found.get(_GEN_PID, b""))
            elif kind in _FLOWTABLES or found.get(_TABLE_NAME) == self.table.encode() + b"\0":
                self._touched = True


def _messages(datagram: bytes) -> Iterator[tuple[int, dict[int, bytes]]]:
    """Message number and attributes of each nf_tables message."""
    for kind, _, _, payload in parts(datagram):
        if kind >> 8 == SUBSYSTEM:
            yield kind & 0xFF, _attributes(payload[FAMILY.size :])


def _attributes(payload: bytes) -> dict[int, bytes]:
    try:
        return dict(attributes(payload))
    except ValueError:
        return {}


def _refused(error: OSError) -> KernelError:
    return KernelError(
        f"the kernel reports no changes of nftables: {error.strerror}",
        code=error.errno or 0,
        hint="run as root; a kernel without nf_tables needs agent.guard: none",
    )
