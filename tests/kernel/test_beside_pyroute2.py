"""Links of many kinds, addresses and default routes as pyroute2 decodes the same bytes."""

import contextlib
import struct
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg
from pyroute2.netlink.rtnl.rtmsg import rtmsg

from ipsec_agent.core.observed import Link, OwnAddress
from ipsec_agent.host.link_records import read_links
from ipsec_agent.host.route_records import (
    FAMILIES,
    IFADDR,
    RT_TABLE_MAIN,
    RTM_GETADDR,
    Hop,
    read_addresses,
    read_default_hops,
)
from ipsec_agent.host.rtnetlink import (
    IFINFO,
    ROUTE,
    RTM_GETLINK,
    RTM_GETROUTE,
    dump,
    open_rtnetlink,
)
from tests.kernel.conftest import Run

pytestmark = pytest.mark.kernel

KINDS = (
    "v0 mtu 1450 type veth peer name v1",
    "v2 type veth peer name v3",
    "br0 type bridge",
    "v0.7 link v0 type vlan id 7",
    "mv0 link v3 type macvlan mode bridge",
    "bond0 type bond",
    "vx0 type vxlan id 7 remote 10.5.0.9 local 10.5.0.1 dev v0 dstport 4789",
    "vx6 type vxlan id 8 remote fd00:5::9 dstport 4790",
    "gen0 type geneve id 7 remote 10.5.0.9 dstport 6081",
    "wg0 type wireguard",
    "vrf0 type vrf table 100",
    "dm0 type dummy",
    "gre0x type gre remote 10.5.0.9 local 10.5.0.1",
    "tun0 type ipip remote 10.5.0.9 local 10.5.0.1",
    "iv0 link br0 type ipvlan mode l2",
    "tap0 type ifb",
)
"""This kernel may lack some of them."""

WANTED = {"veth", "bridge", "vxlan"}
"""Kinds that every kernel of the tests has."""


@pytest.fixture
def machine(namespace: Run) -> None:
    """Links of each kind that the kernel has, addresses and default routes."""
    for kind in KINDS:
        with contextlib.suppress(subprocess.CalledProcessError):
            namespace("ip", "link", "add", *kind.split())
    for line in (
        *(f"link set {name} up" for name in ("v0", "v1", "br0")),
        "link set v1 master br0",
        "link property add dev v0 altname a-name-that-is-longer-than-those-of-links",
        "link set v0 alias some-words",
        "addr add 10.5.0.1/24 dev v0 label v0:1",
        "addr add 10.7.0.1 peer 10.7.0.2/32 dev br0",
        "addr add 10.8.0.1/24 dev v0 valid_lft 600 preferred_lft 300",
        "addr add fd00:5::1/64 dev v0 nodad",
        "addr add fd00:7::1 peer fd00:7::2/128 dev v0 nodad",
        "route add default via 10.5.0.254 metric 4294967295",
        "route add default nexthop via 10.5.0.253 dev v0 nexthop dev br0",
        "route add default via inet6 fd00:5::fd dev v0 metric 7",
        "route add default via 10.5.0.252 table 100",
        "route add default via 10.5.0.251 table 1000",
        "route add unreachable default metric 9",
        "route add 10.9.0.0/16 via 10.5.0.254",
        "-6 route add default nexthop via fd00:5::fc dev v0 nexthop via fd00:5::fb dev v0",
        "nexthop add id 7 via 10.5.0.250 dev v0",
        "route add default nhid 7 metric 5",
    ):
        namespace("ip", *line.split())


def decoded(kind: Any, fixed: bytes, request: int) -> Iterator[Any]:
    """What pyroute2 makes of the kernel's answer."""
    with open_rtnetlink() as channel:
        for body in dump(channel, request, fixed):
            message = kind(struct.pack("=IHHII", 16 + len(body), request, 0, 1, 0) + body)
            message.decode()
            yield message


def test_links(machine: None) -> None:
    """Index, name, MTU, state, kind, bridge, lower link and namespace."""

    def link(message: Any) -> Link:
        info, names = message.get_attr("IFLA_LINKINFO"), message.get_attr("IFLA_PROP_LIST")
        return Link(
            index=message["index"],
            name=message.get_attr("IFLA_IFNAME"),
            mtu=message.get_attr("IFLA_MTU"),
            up=bool(message["flags"] & 1),
            kind=(info.get_attr("IFLA_INFO_KIND") if info else None) or "",
            master=message.get_attr("IFLA_MASTER") or 0,
            lower=message.get_attr("IFLA_LINK") or 0,
            namespace=message.get_attr("IFLA_LINK_NETNSID"),
            loopback=bool(message["flags"] & 8),
            altnames=tuple(names.get_attrs("IFLA_ALT_IFNAME") if names else ()),
        )

    with open_rtnetlink() as channel:
        links = read_links(channel)

    # What of tunnels, whose attributes pyroute2 names by kind, has tests of its own.
    plain = [replace(one, tunnel=None, port=0) for one in links]
    assert plain == [
        link(one) for one in decoded(ifinfmsg, IFINFO.pack(0, 0, 0, 0, 0), RTM_GETLINK)
    ]
    assert {one.kind for one in links} >= WANTED


def test_addresses(machine: None) -> None:
    """All of them, in the kernel's order."""
    with open_rtnetlink() as channel:
        found = read_addresses(channel)

    assert found == tuple(
        OwnAddress(
            ip_address(one.get_attr("IFA_LOCAL") or one.get_attr("IFA_ADDRESS")),
            one["prefixlen"],
            one["index"],
        )
        for one in decoded(ifaddrmsg, IFADDR.pack(0, 0, 0, 0, 0), RTM_GETADDR)
    )
    assert len(found) >= 7


def test_default_routes(machine: None) -> None:
    """All of both families, in the order of their metrics."""
    routes = [
        one
        for family in FAMILIES
        for one in decoded(
            rtmsg, ROUTE.pack(family, 0, 0, 0, RT_TABLE_MAIN, 0, 0, 0, 0), RTM_GETROUTE
        )
        if (one["dst_len"], one["type"]) == (0, 1)
    ]
    routes.sort(key=lambda one: one.get_attr("RTA_PRIORITY") or 0)

    with open_rtnetlink() as channel:
        found = read_default_hops(channel)

    assert found == tuple(hop for one in routes for hop in hops(one))
    assert len(found) == 7


def hops(route: Any) -> Iterator[Hop]:
    """The ways of a route."""
    for one in route.get_attr("RTA_MULTIPATH") or [route]:
        via = one.get_attr("RTA_VIA") or {}
        gateway = one.get_attr("RTA_GATEWAY") or via.get("addr")
        link = one["oif"] if "oif" in one else one.get_attr("RTA_OIF")
        yield Hop(link or 0, ip_address(gateway) if gateway else None)


async def test_a_namespace_without_a_route(namespace: Run) -> None:
    """The kernel has no main table then, and refuses to list it."""
    with open_rtnetlink() as channel:
        assert read_default_hops(channel) == ()
