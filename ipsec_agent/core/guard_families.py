"""What differs between the IP versions in the guard's rules."""

from ipaddress import IPv4Address, IPv6Address

from msgspec import Struct


class Family(Struct, frozen=True):
    """What differs between the IP versions.

    Attributes:
        ip: nft's name of the header.
        later: matches every fragment but the first.
        fragment: matches every fragment.
        source_routes: rules, but for the way, against packets that name the real destination
            elsewhere. In IPv6 a first fragment may leave such a header to the next one, against
            RFC 8200, 4.5, and Linux puts them together (seen, 6.18).
        neighbours: rules that neighbour discovery needs.
        routed: matches all but what only this VM, or one bridged to it, can have sent: no list
            holds a link-local address, and still it is the VM's own.
    """

    version: int
    address: type[IPv4Address | IPv6Address]
    ip: str
    later: str
    fragment: str
    source_routes: tuple[str, ...]
    neighbours: tuple[str, ...] = ()
    routed: str = ""


_DISCOVERY = (
    "nd-router-solicit",
    "nd-router-advert",
    "nd-neighbor-solicit",
    "nd-neighbor-advert",
    "nd-redirect",
)
FAMILIES = {
    4: Family(
        4,
        IPv4Address,
        "ip",
        "ip frag-off & 0x1fff != 0",
        "ip frag-off & 0x3fff != 0",
        ("ip option lsrr exists goto disguised_{}", "ip option ssrr exists goto disguised_{}"),
    ),
    6: Family(
        6,
        IPv6Address,
        "ip6",
        "frag frag-off != 0",
        "exthdr frag exists",
        ("exthdr rt exists goto disguised_{}", "frag frag-off 0 jump beginnings_{}"),
        (
            # RFC 4861, 7.1: with hop limit 255 it cannot have crossed a router.
            f"icmpv6 type {{ {', '.join(_DISCOVERY)} }} ip6 hoplimit 255 accept",
        ),
        # RFC 4291, 2.5.6: no router forwards a link-local source.
        routed="ip6 saddr != fe80::/10 ",
    ),
}
