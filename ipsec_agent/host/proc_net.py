"""Rows and addresses of the kernel's tables of sockets (/proc/net/udp, tcp, udp6, tcp6)."""

import contextlib
import sys
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import NamedTuple

from ipsec_agent.core.model import Address

ESTABLISHED, LISTENING = "01", "0A"
"""include/net/tcp_states.h."""


class Row(NamedTuple):
    """A socket; its addresses are as the kernel writes them, the other end's without its port."""

    address: str
    port: int
    other: str
    state: str
    user: int
    inode: int


def rows(table: Path) -> Iterator[Row]:
    """The sockets of a table; none of one that cannot be read, nor of a line of another form."""
    try:
        lines = table.read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return
    for line in lines:
        with contextlib.suppress(IndexError, ValueError):
            words = line.split()
            own, _, port = words[1].partition(":")
            other = words[2].partition(":")[0]
            yield Row(own, int(port, 16), other, words[3], int(words[7]), int(words[9]))


def address(text: str) -> Address:
    """An address: words of 32 bits in the machine's own order.

    An IPv4 address in an IPv6 one is what it stands for.

    Raises:
        ValueError: it is none.
    """
    words = (int(text[at : at + 8], 16) for at in range(0, len(text), 8))
    packed = b"".join(word.to_bytes(4, sys.byteorder) for word in words)
    if len(packed) == 4:  # noqa: PLR2004 - IPv4
        return IPv4Address(packed)
    found = IPv6Address(packed)
    return found.ipv4_mapped or found
