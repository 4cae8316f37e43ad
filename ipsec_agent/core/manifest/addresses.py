"""Addresses and subnets as operators write them, and why a text is none."""

import re
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from ipsec_agent.core.model import Address, Network

IPV4_BITS = 32
IPV4_PREFIX = 96
"""Bits of an IPv6 address before the IPv4 address in it."""

COMPATIBLE_FIRST = 2
"""Of the addresses ::a.b.c.d: those below are `::` and `::1`, which IPv6 has for itself."""

LONGEST = 100
"""Characters of a text that is looked at closely."""

WRITE_SUBNET = "write an address and a prefix length, such as 10.0.0.0/20"
CAUSES = (
    (
        re.compile(r"[^,;]*[,;].*", re.DOTALL),
        "is more than one value",
        "write each subnet on a line of its own, after `- `",
    ),
    (
        re.compile(r"[\d.]+\s*[-\u2013]\s*[\d.]+|[\da-fA-F:]+\s*[-\u2013]\s*[\da-fA-F:]+"),
        "is a range",
        "write the subnets that it is made of, such as 10.0.0.0/30",
    ),
    (
        re.compile(r"(?:\d+\.){0,2}\d+/\d+"),
        "does not have all four numbers of an IPv4 address",
        "write them, such as 10.0.0.0/8",
    ),
    (
        re.compile(r"(?:\d+\.)*0\d+(?:\.\d+)*(?:/\d+)?"),
        "has a number that begins with 0",
        "remove the 0 before it",
    ),
    (
        re.compile(r"[\d.]+/\d+"),
        "is not a subnet",
        "write an address and a prefix length of at most 32, such as 10.0.0.0/20",
    ),
    (
        re.compile(r"[\da-fA-F:]+/\d+"),
        "is not a subnet",
        "write an address and a prefix length of at most 128, such as fd00::/64",
    ),
)
"""What a text is that is no subnet, and what to do."""


def read_address(text: str) -> Address:
    """An address, without the name of a link.

    Raises:
        ValueError: the text is none.
    """
    address = ip_address(text)
    if isinstance(address, IPv6Address) and address.scope_id is not None:
        raise ValueError(text)
    return address


def read_network(text: str) -> Network:
    """A subnet, of which host bits may be set; without the name of a link.

    Raises:
        ValueError: the text is none.
    """
    if "%" in text:
        # ip_network takes any text behind it, and neither the kernel nor nft does.
        raise ValueError(text)
    return ip_network(text, strict=False)


def as_ipv4(address: Address) -> IPv4Address | None:
    """The IPv4 address that is written as IPv6 (RFC 4291, 2.5.5): no packet has its IPv6 form."""
    if not isinstance(address, IPv6Address):
        return None
    number = int(address)
    compatible = COMPATIBLE_FIRST <= number < 1 << IPV4_BITS
    return IPv4Address(number) if compatible else address.ipv4_mapped


def network_as_ipv4(network: Network) -> str:
    """The IPv4 form of a subnet that is written as IPv6, "" for all else."""
    address = as_ipv4(network.network_address) if network.prefixlen >= IPV4_PREFIX else None
    return f"{address}/{network.prefixlen - IPV4_PREFIX}" if address else ""


def no_subnet(text: str) -> tuple[str, str]:
    """What is wrong with a text that is no subnet, and what to do."""
    if "%" in text:
        return "has the name of a link", "remove `%` and what is behind it"
    for pattern, message, remedy in CAUSES if len(text) <= LONGEST else ():
        if pattern.fullmatch(text):
            return message, remedy
    return "is not a subnet", WRITE_SUBNET
