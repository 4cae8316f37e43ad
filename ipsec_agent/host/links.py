"""The VM's interfaces, addresses and default routes: list, set an MTU, watch."""

import asyncio
import errno
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, asynccontextmanager
from ipaddress import ip_address
from socket import AF_INET, AF_INET6, AF_UNSPEC, NETLINK_ROUTE
from typing import Any

from msgspec.structs import replace

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import NetworkFacts, OwnAddress
from ipsec_agent.errors import KernelError
from ipsec_agent.host.link_events import News, open_link_events
from ipsec_agent.host.link_reading import LinkReading, Seen
from ipsec_agent.host.netlink_wire import DEADLINE, NetlinkWire, translated, watch
from ipsec_agent.host.pyroute2_parts import AsyncNetlinkSocket, Marshal, ifaddrmsg, rtmsg
from ipsec_agent.host.rtnetlink import (
    IFINFO,
    NLM_F_ACK,
    RTM_NEWLINK,
    ask,
    attribute,
    open_rtnetlink,
)
from ipsec_agent.host.understood import understood
from ipsec_agent.host.veth import may_enter

# linux/rtnetlink.h, linux/if_addr.h, linux/if_link.h
RTM_NEWADDR, RTM_DELADDR, RTM_GETADDR = 20, 21, 22
RTM_NEWROUTE, RTM_DELROUTE, RTM_GETROUTE = 24, 25, 26
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 5, 7
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 9, 11
IFLA_MTU = 4
RT_TABLE_MAIN = 254
RTN_UNICAST = 1
RTNH_F_DEAD = 1
RTNLGRP_NEXTHOP = 32

_GROUPS = (
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    # A nexthop object that goes takes IPv4 routes with it, without a word about them.
    RTNLGRP_NEXTHOP,
)


class _RouteMarshal(Marshal):
    """Which class reads which message type; others are read as bare headers."""

    msg_map = dict.fromkeys((RTM_NEWADDR, RTM_DELADDR), ifaddrmsg) | dict.fromkeys(
        (RTM_NEWROUTE, RTM_DELROUTE), rtmsg
    )


class _RouteSocket(AsyncNetlinkSocket):
    marshal_class = _RouteMarshal


class Links:
    """The links of this process's network namespace."""

    def __init__(self, wire: NetlinkWire, thread: ThreadPoolExecutor) -> None:
        self._wire = wire
        self._thread = thread
        self._reading = LinkReading()

    async def facts(self) -> NetworkFacts:
        """Links, addresses, and the default routes of the main table, preferred ones first.

        Raises:
            KernelError: refused or too late.
        """
        # Links first: of an IPv4 route that goes with its link no event tells, but that of the link
        # comes before it, and this dump waits for the whole change.
        seen = await self._seen()
        addresses = await self._wire.dump("reading the addresses", ifaddrmsg, RTM_GETADDR)
        hops = await self._default_hops()
        return NetworkFacts(
            links=seen.links,
            addresses=own_addresses(addresses),
            default_links=tuple(dict.fromkeys(link for link, _ in hops if link)),
            gateways=tuple(dict.fromkeys(gateway for _, gateway in hops if gateway is not None)),
            may_enter=may_enter(),
            namespaces=seen.namespaces,
            number=seen.number,
        )

    async def links_again(self, facts: NetworkFacts) -> NetworkFacts:
        """Facts with only their links read again, as is quick.

        Raises:
            KernelError: refused or too late.
        """
        seen = await self._seen()
        return replace(facts, links=seen.links, namespaces=seen.namespaces, number=seen.number)

    async def _seen(self) -> Seen:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._reading.read)

    async def set_mtu(self, index: int, mtu: int) -> None:
        """Set a link's MTU in bytes.

        Raises:
            KernelError: refused (EINVAL where the link cannot carry it), no such link, too late.
        """
        with translated(f"setting the MTU of link {index} to {mtu}"):
            await asyncio.get_running_loop().run_in_executor(self._thread, _set_mtu, index, mtu)

    async def watch(
        self, wake: Callable[[], None], at_once: Callable[[], Awaitable[None]] | None = None
    ) -> None:
        """Call `wake` until cancelled: links, addresses or default routes came, changed, went.

        Also at the start, after lost events, and for changes of our own.

        Args:
            at_once: is awaited first where links changed, here or in a container.

        Raises:
            KernelError: the kernel does not let us listen; within an exception group.
        """
        doing = "listening to the addresses"
        async with asyncio.TaskGroup() as group:
            group.create_task(watch(doing, _open_socket, _GROUPS, wake, matters=_matters))
            group.create_task(self._watch_links(wake, at_once))

    async def _watch_links(
        self, wake: Callable[[], None], at_once: Callable[[], Awaitable[None]] | None
    ) -> None:
        news = News(everywhere=True)
        with open_link_events() as events:
            try:
                while True:
                    self._reading.told(news, hears_all=events.hears_all)
                    if at_once is not None:
                        await at_once()
                    wake()
                    news = await events.heard()
            finally:
                self._reading.deaf()

    async def _default_hops(self) -> list[tuple[int, Address | None]]:
        routes = []
        for request in (_routes_v4, _routes_v6):
            routes += await self._wire.dump("reading the routes", request, RTM_GETROUTE)
        return default_hops(routes)


@asynccontextmanager
async def open_links(*, deadline: float = DEADLINE) -> AsyncIterator[Links]:
    """Links of this process's network namespace; `deadline` in seconds per request."""
    wire = NetlinkWire(_open_socket, deadline=deadline)
    with ThreadPoolExecutor(1, "links") as thread:
        try:
            yield Links(wire, thread)
        finally:
            wire.close()


def _open_socket() -> Any:
    # Strict: the kernel heeds the table of a route request. Never with a netns argument, whose
    # default flags create a missing namespace.
    return _RouteSocket(NETLINK_ROUTE, strict_check=True)


def _set_mtu(index: int, mtu: int) -> None:
    with open_rtnetlink() as channel:
        request = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_MTU, mtu)
        ask(channel, RTM_NEWLINK, request, NLM_F_ACK)


def _routes_v4() -> Any:
    return _routes(AF_INET)


def _routes_v6() -> Any:
    return _routes(AF_INET6)


def _routes(family: int) -> Any:
    message = rtmsg()
    message["family"] = family
    message["table"] = RT_TABLE_MAIN
    return message


def own_addresses(messages: Iterable[Any]) -> tuple[OwnAddress, ...]:
    """The addresses that a dump tells of.

    Raises:
        KernelError: a message is not understood.
    """
    with _understood("addresses"):
        return tuple(map(_own_address, messages))


def default_hops(messages: Iterable[Any]) -> list[tuple[int, Address | None]]:
    """Link and gateway of each default route that a dump tells of, preferred ones first.

    Raises:
        KernelError: a message is not understood.
    """
    with _understood("routes"):
        routes = [route for route in messages if _is_default(route)]
        routes.sort(key=lambda route: route.get_attr("RTA_PRIORITY") or 0)
        return [hop for route in routes for hop in _hops(route)]


def _understood(what: str) -> AbstractContextManager[None]:
    return understood(
        lambda error: KernelError(
            f"cannot understand the kernel's {what}: {error}", code=errno.EBADMSG
        )
    )


def _own_address(message: Any) -> OwnAddress:
    return OwnAddress(
        # On a point-to-point link IFA_ADDRESS is the peer's.
        address=ip_address(message.get_attr("IFA_LOCAL") or message.get_attr("IFA_ADDRESS")),
        prefix=message["prefixlen"],
        link=message["index"],
    )


def _is_default(message: Any) -> bool:
    table = message.get_attr("RTA_TABLE") or message["table"]
    return bool(
        message["dst_len"] == 0
        and message["src_len"] == 0
        and message["type"] == RTN_UNICAST
        and table == RT_TABLE_MAIN
        and not message["flags"] & RTNH_F_DEAD
    )


def _hops(message: Any) -> Iterator[tuple[int, Address | None]]:
    """Link and gateway of each way that a route takes."""
    for hop in message.get_attr("RTA_MULTIPATH") or [message]:
        via = hop.get_attr("RTA_VIA") or {}
        gateway = hop.get_attr("RTA_GATEWAY") or via.get("addr")
        link = hop["oif"] if "oif" in hop else hop.get_attr("RTA_OIF")
        yield link or 0, ip_address(gateway) if gateway else None


def _matters(message: Any) -> bool:
    """Whether an event can change the facts: of routes only the default ones can."""
    with _understood("events"):
        if message["header"]["type"] in {RTM_NEWROUTE, RTM_DELROUTE}:
            return bool(message["dst_len"] == 0)
        return True
