"""Addresses as the kernel's tables of sockets write them (/proc/net/udp, tcp, udp6, tcp6)."""

import sys
from ipaddress import IPv4Address, IPv6Address

from ipsec_agent.core.model import Address


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
