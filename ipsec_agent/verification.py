"""Proves that packets to peers are ESP: sends some, reads the SAs' counters and captures the wire.

First an SA is waited for, as any other packet would have one made. What then counts as proof is a
second window, in which both the counters and the capture began before the first echo.
"""

import asyncio
import contextlib
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from functools import partial
from typing import Any, Generic, TypeVar

from msgspec.structs import replace

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.core.path_mtu import SMALLEST, PathMtu, begun, found
from ipsec_agent.core.proof import Echoes, Observation, Pair
from ipsec_agent.core.verify_status import Lists, dropped, faults
from ipsec_agent.errors import KernelError
from ipsec_agent.host.capture import Capture, decrypts_early
from ipsec_agent.host.echo import LARGEST, Echo
from ipsec_agent.host.neighbours import Neighbours
from ipsec_agent.host.peer_sas import PeerSas
from ipsec_agent.host.peers import Knock
from ipsec_agent.host.route_records import read_network, source_for
from ipsec_agent.host.socket_policy import require_esp

AT_ONCE = 16
"""Peers that are proved at the same time."""

EVERY = 0.25
"""Seconds between two packets while an SA is waited for."""

ECHOES, GAP = 5, 0.05
"""How many prove it, and seconds between two of them."""

ANSWERED_WITHIN = 3.0
"""Seconds for the answers to them."""

KNOCKED_WITHIN = 0.9
"""Seconds for the answer to something else: less than TCP waits before it sends again."""

DISCOVERY = 5.0
"""Seconds until neighbour discovery has given up: 3 questions, one a second (arp(7))."""

TICK = 0.01
"""Seconds between two looks at whether an answer has come."""

TRIES = 2
"""Packets of one size of which none is answered until that size is given up."""

Status = Callable[[], dict[str, Any]]

T = TypeVar("T")


class Shared(Generic[T]):
    """What is read again and again. All who wait share one reading.

    Every reading that is given began after it was asked for.
    """

    def __init__(self, read: Callable[[], Awaitable[T]]) -> None:
        self._read = read
        self._lock = asyncio.Lock()
        self._found: tuple[float, T] | None = None

    async def get(self) -> T:
        """A new reading."""
        asked = time.monotonic()
        async with self._lock:
            if self._found is None or self._found[0] < asked:
                self._found = time.monotonic(), await self._read()
            return self._found[1]


class SaEndedError(Exception):
    """The SA of a proof has ended: nothing more is sent, and nothing is said of the peer."""


class BySa:
    """Lets a socket send to a peer only while there is an SA to it.

    It is asked before each packet, since without an SA a packet would have charon make one. Where
    IPsec is optional it would leave in clear besides, so the kernel is told to refuse that, too.
    """

    def __init__(self, pair: Pair, own: Address, sas: PeerSas) -> None:
        self._pair, self._own, self._sas = pair, own, sas

    def __call__(self, channel: socket.socket) -> None:
        """Return where there is one.

        Raises:
            SaEndedError: there is none.
            KernelError: the kernel does not tell it.
        """
        outward = self._sas.between(self._own, self._pair.peer).outward
        if not outward:
            raise SaEndedError
        if self._pair.optional:
            require_esp(channel, outward[-1].reqid)


async def verify(
    peers: Iterable[Address], status: Status, patience: float
) -> AsyncIterator[Observation]:
    """What is seen of each peer, in their order.

    Args:
        status: gives what the agent says now; it may block.
        patience: seconds to wait for an SA with each.

    Raises:
        KernelError: not root, or the kernel has no XFRM.
        ControlError: no agent answers.
    """
    said = Shared(lambda: asyncio.to_thread(status))
    lists = Lists.of(await said.get())
    pairs = [lists.pair(peer, source_for(peer)) for peer in peers]
    places = asyncio.Semaphore(AT_ONCE)
    with PeerSas() as sas:
        await asyncio.to_thread(sas.list)

        async def one(pair: Pair) -> Observation:
            if not pair.encrypted or pair.own is None:
                return Observation(pair)
            async with places:
                with Echo(pair.own, pair.peer) as echo:
                    return await _observed(pair, echo, sas, said, patience)

        tasks = [asyncio.create_task(one(pair), name=f"verify {pair.peer}") for pair in pairs]
        try:
            for task in tasks:
                yield await task
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)


async def prove(
    pair: Pair, own: Address, sas: PeerSas, said: Shared[dict[str, Any]]
) -> Observation | None:
    """What is seen of one peer with which there is an SA; None where it has ended meanwhile.

    Args:
        own: this VM's address that is used for it.
        said: what the agent says now; it is asked where the peer is not proven.

    Raises:
        KernelError: not root, or the kernel has no XFRM.
    """
    if not sas.between(own, pair.peer).both:
        return None
    with (
        contextlib.suppress(SaEndedError),
        Echo(own, pair.peer, BySa(pair, own, sas)) as echo,
    ):
        seen = await _observed(pair, echo, sas, said, 0.0)
        if seen.esp_both_ways or sas.between(own, pair.peer).both:
            return seen
    return None


async def _observed(
    pair: Pair, echo: Echo, sas: PeerSas, said: Shared[dict[str, Any]], patience: float
) -> Observation:
    """What is seen of one peer to which packets are sent.

    Args:
        patience: seconds to wait for an SA.
    """
    with Capture(echo.own, echo.peer) as capture:
        loop = asyncio.get_running_loop()
        capture.watched(loop.add_reader)
        echo.watched(loop.add_reader)
        try:
            began = time.monotonic()
            there = await _wait_for_sas(echo, sas, patience)
            seen = Observation(pair, sas=there, waited=time.monotonic() - began)
            refused = tuple(echo.refused)
            seen = await _prove(seen, capture, echo, sas)
            if not seen.echoes.times:
                seen = replace(
                    seen, echoes=replace(seen.echoes, refused=(*seen.echoes.refused, *refused))
                )
            elif seen.esp_both_ways:
                seen = replace(seen, path=await _path_mtu(echo, max(seen.echoes.times)))
        finally:
            for descriptor in (*capture.descriptors, echo.descriptor):
                loop.remove_reader(descriptor)
    if not seen.esp_both_ways:
        before = seen.before
        came = before.ike_in or before.clear_in or before.closed or seen.proof.esp_in
        absent = not came and await _absent(pair.peer)
        status = await said.get()
        of_peer, of_this_vm = faults(status, pair.peer)
        held_back = dropped(status, pair.peer, time.monotonic() - began)
        seen = replace(seen, absent=absent, dropped=held_back, fault=of_peer, own_fault=of_this_vm)
    return seen


async def _wait_for_sas(echo: Echo, sas: PeerSas, patience: float) -> bool:
    """Send until there is an SA each way; whether there is."""
    deadline = time.monotonic() + patience
    while True:
        echo.send()
        if sas.between(echo.own, echo.peer).both:
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(EVERY)


async def _prove(seen: Observation, capture: Capture, echo: Echo, sas: PeerSas) -> Observation:
    """Send echoes within a window of its own."""
    # What was under way belongs to the window before.
    await asyncio.sleep(GAP)
    base = sas.between(echo.own, echo.peer)
    before = capture.take()
    echo.forget()
    for _ in range(ECHOES):
        echo.send()
        await asyncio.sleep(GAP)
    patience = ANSWERED_WITHIN if seen.sas else GAP
    await _soon(lambda: len(echo.answers) == ECHOES, patience)
    # A firewall may drop echoes; a kernel answers these, too.
    knocked = not echo.answers and await _knocks(echo, min(KNOCKED_WITHIN, patience))
    after = sas.between(echo.own, echo.peer)
    return replace(
        seen,
        before=before,
        proof=capture.take(),
        counted_in=_rise(base.inward, after.inward),
        counted_out=_rise(base.outward, after.outward),
        echoes=Echoes(len(echo.sent), tuple(echo.refused), echo.times),
        knocked=knocked,
        decrypted=decrypts_early(),
    )


def _rise(before: Iterable[SecurityAssociation], after: Iterable[SecurityAssociation]) -> int:
    """Packets that were counted meanwhile; an SA that is new began at 0."""
    base = {sa.spi: sa.packets for sa in before}
    return sum(max(sa.packets - base.get(sa.spi, 0), 0) for sa in after)


async def _soon(done: Callable[[], bool], seconds: float) -> bool:
    """Wait until something is done, or for so many seconds; whether it is."""
    deadline = time.monotonic() + seconds
    while True:
        if done():
            return True
        if time.monotonic() >= deadline:
            return False
        await asyncio.sleep(TICK)


async def _knocks(echo: Echo, seconds: float) -> bool:
    """Whether the peer's kernel answers something else within so many seconds."""
    with Knock(echo.peer, echo.allowed) as knock:
        return await _soon(lambda: knock.answered, seconds)


async def _path_mtu(echo: Echo, slowest: float) -> PathMtu:
    """Send larger and larger packets, or smaller ones where they are lost.

    Args:
        slowest: seconds that an answer took.
    """
    patience = min(max(10 * slowest, 0.3), 2.0)
    search = begun(_refused(echo))
    while (size := search.size) is not None:
        passes = await _passes(echo, size, patience)
        search = search.answered(size) if passes else search.lost(size)
        if search.fails == size and echo.send(size) is None:
            # The network has told meanwhile what it takes.
            search = search.too_large(_refused(echo, size))
    return found(search)


async def _passes(echo: Echo, size: int, patience: float) -> bool:
    for _ in range(TRIES):
        number = echo.send(size)
        if number is None:
            return False
        if await _soon(partial(echo.answers.__contains__, number), patience):
            return True
    return False


def _refused(echo: Echo, known: int = LARGEST + 1) -> int:
    """The smallest size that this VM refuses to send; half of the packets tried are sent."""
    taken, refused = SMALLEST, known
    while refused - taken > 1:
        size = (taken + refused) // 2
        if echo.send(size) is None:
            refused = size
        else:
            taken = size
    return refused


async def _absent(peer: Address) -> bool:
    """Whether neighbour discovery finds nobody at this address, which takes it some seconds."""
    neighbours = Neighbours()
    neighbours.want((peer,))
    deadline = time.monotonic() + DISCOVERY
    with contextlib.suppress(KernelError):
        network = await asyncio.to_thread(read_network)
        # The first look may ask for it; where there is no entry then, it is on no link of ours.
        await asyncio.to_thread(neighbours.get, network)
        while (entries := await asyncio.to_thread(neighbours.get, network)) and (
            time.monotonic() < deadline
        ):
            if any(one.failed or one.answered for one in entries):
                return any(one.failed for one in entries)
            await asyncio.sleep(EVERY)
    return False
