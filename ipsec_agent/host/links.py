"""The VM's interfaces, addresses and default routes: list, set an MTU, watch."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from functools import partial
from socket import AF_UNSPEC, NETLINK_ROUTE
from typing import TypeVar

from msgspec.structs import replace

from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.host.link_events import News, open_link_events
from ipsec_agent.host.link_reading import LinkReading
from ipsec_agent.host.netlink_errors import translated
from ipsec_agent.host.netlink_wire import open_netlink, watch
from ipsec_agent.host.route_records import matters, read_network
from ipsec_agent.host.rtnetlink import (
    IFINFO,
    NLM_F_ACK,
    RTM_NEWLINK,
    ask,
    attribute,
    open_rtnetlink,
)
from ipsec_agent.host.veth import may_enter

T = TypeVar("T")

# linux/rtnetlink.h, linux/if_link.h
RTNLGRP_IPV4_IFADDR, RTNLGRP_IPV4_ROUTE = 5, 7
RTNLGRP_IPV6_IFADDR, RTNLGRP_IPV6_ROUTE = 9, 11
RTNLGRP_NEXTHOP = 32
IFLA_MTU = 4

_GROUPS = (
    RTNLGRP_IPV4_IFADDR,
    RTNLGRP_IPV6_IFADDR,
    RTNLGRP_IPV4_ROUTE,
    RTNLGRP_IPV6_ROUTE,
    # A nexthop object that goes takes IPv4 routes with it, without a word about them.
    RTNLGRP_NEXTHOP,
)


class Links:
    """The links of this process's network namespace."""

    def __init__(self, thread: ThreadPoolExecutor) -> None:
        self._thread = thread
        self._reading = LinkReading()

    async def facts(self) -> NetworkFacts:
        """Links, addresses, and the default routes of the main table, preferred ones first.

        Raises:
            KernelError: refused or too late.
        """
        return await self._in_thread(partial(read_facts, self._reading))

    async def links_again(self, facts: NetworkFacts) -> NetworkFacts:
        """Facts with only their links read again, as is quick.

        Raises:
            KernelError: refused or too late.
        """
        seen = await self._in_thread(self._reading.read)
        return replace(facts, links=seen.links, namespaces=seen.namespaces, number=seen.number)

    async def _in_thread(self, work: Callable[[], T]) -> T:
        return await asyncio.get_running_loop().run_in_executor(self._thread, work)

    async def set_mtu(self, index: int, mtu: int) -> None:
        """Set a link's MTU in bytes.

        Raises:
            KernelError: refused (EINVAL where the link cannot carry it), no such link, too late.
        """
        with translated(f"setting the MTU of link {index} to {mtu}"):
            await self._in_thread(partial(_set_mtu, index, mtu))

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
        doing, open_ear = (
            "listening to the addresses",
            partial(open_netlink, NETLINK_ROUTE, _GROUPS),
        )
        async with asyncio.TaskGroup() as group:
            group.create_task(watch(doing, open_ear, wake, matters=matters))
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


def read_facts(reading: LinkReading) -> NetworkFacts:
    """Links, addresses, and the default routes of the main table, preferred ones first. It blocks.

    Raises:
        KernelError: refused or too late.
    """
    # Links first: of an IPv4 route that goes with its link no event tells, but that of the link
    # comes before it, and this dump waits for the whole change.
    seen = reading.read()
    return replace(
        read_network(),
        links=seen.links,
        may_enter=may_enter(),
        namespaces=seen.namespaces,
        number=seen.number,
    )


@asynccontextmanager
async def open_links() -> AsyncIterator[Links]:
    """Links of this process's network namespace."""
    with ThreadPoolExecutor(1, "links") as thread:
        yield Links(thread)


def _set_mtu(index: int, mtu: int) -> None:
    with open_rtnetlink() as channel:
        request = IFINFO.pack(AF_UNSPEC, 0, index, 0, 0) + attribute(IFLA_MTU, mtu)
        ask(channel, RTM_NEWLINK, request, NLM_F_ACK)
