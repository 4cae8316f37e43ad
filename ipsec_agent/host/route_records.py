"""What the kernel says of this namespace's addresses, its default routes and the way to a peer.

Formats: linux/if_addr.h, linux/rtnetlink.h.
"""

import errno
import socket
import struct
from collections.abc import Iterator
from ipaddress import ip_address
from typing import NamedTuple

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import NetworkFacts, OwnAddress
from ipsec_agent.host.netlink_errors import translated
from ipsec_agent.host.rtnetlink import (
    ATTRIBUTE,
    ROUTE,
    RTM_GETROUTE,
    ask,
    attributes,
    dump,
    number,
    open_rtnetlink,
)
from ipsec_agent.host.understood import as_told

RTM_GETADDR = 22
RTM_NEWROUTE, RTM_DELROUTE = 24, 25
IFADDR = struct.Struct("=BBBBI")
"""`struct ifaddrmsg`: family, prefix length, flags, scope, link."""

NEXT_HOP = struct.Struct("=HBBi")
"""`struct rtnexthop`: length, flags, hops, link; its attributes follow."""

IFA_ADDRESS, IFA_LOCAL = 1, 2
RTA_DST, RTA_OIF, RTA_GATEWAY, RTA_PRIORITY, RTA_PREFSRC = 1, 4, 5, 6, 7
RTA_MULTIPATH, RTA_TABLE, RTA_VIA = 9, 15, 18
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTNH_F_DEAD = 1
FAMILIES = (socket.AF_INET, socket.AF_INET6)
NO_ROUTE = frozenset({errno.ENETUNREACH, errno.EHOSTUNREACH, errno.EACCES, errno.EINVAL})
"""Without a route, and of one that is unreachable, prohibited or a blackhole."""


class Hop(NamedTuple):
    """A way that a default route takes; `link` is 0 where it names none."""

    link: int
    gateway: Address | None


class Route(NamedTuple):
    """A default route; the one with the smallest metric is preferred."""

    metric: int
    hops: tuple[Hop, ...]


def read_network() -> NetworkFacts:
    """The addresses of every link and the default routes, preferred ones first; no links.

    Raises:
        KernelError: refused, too late, or not understood.
    """
    with translated("reading the addresses and routes"), open_rtnetlink() as channel:
        addresses = read_addresses(channel)
        hops = read_default_hops(channel)
    return NetworkFacts(
        addresses=addresses,
        default_links=tuple(dict.fromkeys(hop.link for hop in hops if hop.link)),
        gateways=tuple(dict.fromkeys(hop.gateway for hop in hops if hop.gateway is not None)),
    )


def source_for(peer: Address) -> Address | None:
    """This VM's address that a packet to a peer would have; None where no route leads there.

    A socket that is connected would tell it, too, but of a policy that blocks as of no route, and
    where there is no SA charon would be asked for one.

    Raises:
        KernelError: refused, too late, or not understood.
    """
    family, raw = FAMILIES[peer.version == 6], peer.packed  # noqa: PLR2004
    wanted = ROUTE.pack(family, len(raw) * 8, 0, 0, 0, 0, 0, 0, 0)
    wanted += ATTRIBUTE.pack(ATTRIBUTE.size + len(raw), RTA_DST) + raw
    with translated(f"finding the route to {peer}"), open_rtnetlink() as channel:
        try:
            found = ask(channel, RTM_GETROUTE, wanted)
        except OSError as error:
            if error.errno in NO_ROUTE:
                return None
            raise
        with as_told():
            return ip_address(found[RTA_PREFSRC]) if RTA_PREFSRC in found else None


def read_addresses(channel: socket.socket) -> tuple[OwnAddress, ...]:
    """The addresses of all links.

    Raises:
        OSError: refused, too late, or not understood.
    """
    found = map(address_of, dump(channel, RTM_GETADDR, IFADDR.pack(0, 0, 0, 0, 0)))
    return tuple(one for one in found if one is not None)


def read_default_hops(channel: socket.socket) -> tuple[Hop, ...]:
    """Each way of each default route of the main table, of both families, preferred ones first.

    Raises:
        OSError: refused, too late, or not understood.
    """
    bodies = [body for family in FAMILIES for body in _main_table(channel, family)]
    routes = [route for route in map(default_route, bodies) if route is not None]
    routes.sort(key=lambda route: route.metric)
    return tuple(hop for route in routes for hop in route.hops)


def _main_table(channel: socket.socket, family: int) -> list[bytes]:
    try:
        return dump(channel, RTM_GETROUTE, ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0))
    except OSError as error:
        # The kernel makes the table with its first route.
        if error.errno == errno.ENOENT:
            return []
        raise


def address_of(body: bytes) -> OwnAddress | None:
    """An address from an answer's fixed part and attributes; None of another family than IP.

    Raises:
        OSError: it is not understood.
    """
    with as_told():
        family, prefix, _, _, link = IFADDR.unpack_from(body)
        if family not in FAMILIES:
            return None
        found = dict(attributes(body[IFADDR.size :]))
        # On a point-to-point link IFA_ADDRESS is the peer's.
        address = ip_address(found.get(IFA_LOCAL) or found[IFA_ADDRESS])
        return OwnAddress(address=address, prefix=prefix, link=link)


def default_route(body: bytes) -> Route | None:
    """A default route from an answer's fixed part and attributes; None of any other route.

    Raises:
        OSError: it is not understood.
    """
    with as_told():
        family, to, source, _, table, _, _, kind, flags = ROUTE.unpack_from(body)
        if family not in FAMILIES or to or source or kind != RTN_UNICAST or flags & RTNH_F_DEAD:
            return None
        found = dict(attributes(body[ROUTE.size :]))
        if (_unsigned(found, RTA_TABLE) or table) != RT_TABLE_MAIN:
            return None
        return Route(_unsigned(found, RTA_PRIORITY), tuple(_hops(found)))


def matters(kind: int, body: bytes) -> bool:
    """Whether an event can change what is read here: of routes only the default ones can.

    Raises:
        OSError: it is not understood.
    """
    with as_told():
        return kind not in {RTM_NEWROUTE, RTM_DELROUTE} or ROUTE.unpack_from(body)[1] == 0


def _hops(found: dict[int, bytes]) -> Iterator[Hop]:
    if not found.get(RTA_MULTIPATH):
        yield Hop(_unsigned(found, RTA_OIF), _gateway(found))
        return
    raw = found[RTA_MULTIPATH]
    while len(raw) >= NEXT_HOP.size:
        length, _, _, link = NEXT_HOP.unpack_from(raw)
        yield Hop(link, _gateway(dict(attributes(raw[NEXT_HOP.size : length]))))
        raw = raw[max(-(-length // 4) * 4, NEXT_HOP.size) :]


def _gateway(found: dict[int, bytes]) -> Address | None:
    # `struct rtvia` has a gateway of the other family behind that family's number.
    raw = found.get(RTA_GATEWAY) or found.get(RTA_VIA, b"")[2:]
    return ip_address(raw) if raw else None


def _unsigned(found: dict[int, bytes], kind: int) -> int:
    return number(found[kind]) & 0xFFFFFFFF if kind in found else 0
