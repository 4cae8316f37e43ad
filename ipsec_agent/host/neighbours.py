"""What the kernel knows of peers as neighbours: whether one on a link of ours is still there.

The kernel finds out by ARP or neighbour discovery when something is sent to an address. Where
nothing is, it is asked to, which sends no packet of any program (NTF_USE, linux/neighbour.h).
"""

import contextlib
import errno
import os
import socket
import struct
import time
from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.observed_peers import Neighbour
from ipsec_agent.errors import KernelError
from ipsec_agent.host.rtnetlink import (
    ATTRIBUTE,
    NDMSG,
    NLM_F_ACK,
    RTM_GETNEIGH,
    RTM_NEWNEIGH,
    ask,
    attributes,
    dump,
    open_rtnetlink,
)
from ipsec_agent.host.understood import as_told

ASK_EACH = 30.0
"""Seconds after which the kernel is asked again to look for a neighbour."""

NLM_F_CREATE, NTF_USE = 0x400, 1
NDA_DST, NDA_CACHEINFO = 1, 3
NUD_VALID, NUD_FAILED = 0x02 | 0x04 | 0x08 | 0x10, 0x20
"""Reachable, or was a moment ago (REACHABLE, STALE, DELAY, PROBE); does not answer."""

CACHE = struct.Struct("=4I")
"""nda_cacheinfo: confirmed, used, updated, refcnt; the first three as ticks ago."""

TICKS = os.sysconf("SC_CLK_TCK")


class Neighbours:
    """Reads the entries of some peers, and keeps them current. It blocks for a moment."""

    def __init__(self) -> None:
        self._peers: frozenset[Address] = frozenset()
        self._asked: dict[Address, float] = {}

    def want(self, peers: Iterable[Address]) -> None:
        """The peers to be looked for from now on."""
        self._peers = frozenset(peers)
        self._asked = {peer: at for peer, at in self._asked.items() if peer in self._peers}

    @property
    def wanted(self) -> bool:
        """Whether a peer is looked for."""
        return bool(self._peers)

    def get(self, network: NetworkFacts | None) -> tuple[Neighbour, ...]:
        """What is known of those that are on a link; nothing is read while none is looked for.

        Args:
            network: this VM's links and addresses; None where they are not known.

        Raises:
            KernelError: the kernel does not tell it.
        """
        near = _links(self._peers, network) if self._peers and network else {}
        if not near:
            return ()
        try:
            with open_rtnetlink() as channel:
                found = tuple(_read(channel, near))
                self._ask(channel, near)
        except OSError as error:
            raise KernelError(
                f"cannot read this VM's neighbours: {error.strerror or error}",
                code=error.errno or errno.EBADMSG,
                hint="until then a peer that is gone is not told from one that fails",
            ) from error
        return found

    def _ask(self, channel: socket.socket, near: dict[Address, int]) -> None:
        now = time.monotonic()
        for peer, link in near.items():
            if now - self._asked.get(peer, -ASK_EACH) >= ASK_EACH:
                self._asked[peer] = now
                # A full table, or a link that is down or has no neighbours.
                with contextlib.suppress(OSError):
                    ask(channel, RTM_NEWNEIGH, _entry(peer, link), NLM_F_ACK | NLM_F_CREATE)


def _links(peers: Iterable[Address], network: NetworkFacts) -> dict[Address, int]:
    """The link of each peer that an own address has in its network."""
    found: dict[Address, int] = {}
    for peer in peers:
        for own in network.addresses:
            shift = peer.max_prefixlen - own.prefix
            same = own.address.version == peer.version and shift > 0
            if same and int(own.address) >> shift == int(peer) >> shift:
                found.setdefault(peer, own.link)
    return found


def _read(channel: socket.socket, near: dict[Address, int]) -> Iterator[Neighbour]:
    now = time.time()
    for version, family in ((4, socket.AF_INET), (6, socket.AF_INET6)):
        if not any(peer.version == version for peer in near):
            continue
        for message in dump(channel, RTM_GETNEIGH, NDMSG.pack(family, 0, 0, 0, 0)):
            with as_told():
                _, link, state, _, _ = NDMSG.unpack_from(message)
                more = dict(attributes(message[NDMSG.size :]))
                if NDA_DST not in more:
                    continue
                peer = ip_address(more[NDA_DST])
                if near.get(peer) != link:
                    continue
                ticks = CACHE.unpack_from(more[NDA_CACHEINFO])[0] if state & NUD_VALID else 0
            there = now - ticks / TICKS if state & NUD_VALID else 0.0
            yield Neighbour(peer, there, failed=bool(state & NUD_FAILED))


def _entry(peer: Address, link: int) -> bytes:
    family = socket.AF_INET if peer.version == 4 else socket.AF_INET6  # noqa: PLR2004
    address = ATTRIBUTE.pack(ATTRIBUTE.size + len(peer.packed), NDA_DST) + peer.packed
    return NDMSG.pack(family, link, 0, NTF_USE, 0) + address
