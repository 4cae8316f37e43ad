"""The peers that had an SA with this VM, in a file, and packets that wake one up, or test it."""

import contextlib
import json
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import CharonProcess, RememberedPeer
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular, write_whole
from ipsec_agent.host.understood import NOT_UNDERSTOOD

DISCARD = 9
"""The port to which a poke goes: who listens there throws it away (RFC 863)."""

LARGEST = 1 << 20


class PeerMemory:
    """The file of peers, and which of them were poked since charon started."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._peers: tuple[RememberedPeer, ...] | None = None
        self._charon = 0.0
        self._poked: dict[Address, float] = {}

    def peers(self, charon: CharonProcess | None) -> tuple[RememberedPeer, ...]:
        """The peers; what cannot be read is forgotten, which costs a peer the wait for its DPD."""
        started = charon.started if charon else 0.0
        if started != self._charon:
            self._charon, self._poked = started, {}
        if self._peers is None:
            self._peers = _read(self._path)
        return tuple(
            RememberedPeer(
                peer.address,
                peer.seen,
                poked=peer.address in self._poked,
                poked_at=self._poked.get(peer.address, 0.0),
            )
            for peer in self._peers
        )

    def write(self, peers: Iterable[RememberedPeer]) -> None:
        """Write the file again."""
        self._peers = tuple(peers)
        text = json.dumps({str(peer.address): int(peer.seen) for peer in self._peers})
        # As with reading: a full disk must not stop IPsec.
        with contextlib.suppress(AgentError):
            write_whole(self._path, text + "\n", mode=0o600)

    def poke(self, peers: Iterable[Address]) -> None:
        """Send each one packet, which falls into the trap; one that cannot be sent is lost."""
        for peer in peers:
            self._poked[peer] = time.time()
            family = socket.AF_INET if peer.version == 4 else socket.AF_INET6  # noqa: PLR2004
            with (
                socket.socket(family, socket.SOCK_DGRAM) as channel,
                contextlib.suppress(OSError),
            ):
                channel.setblocking(False)
                channel.sendto(b"", (str(peer), DISCARD))


def probe(peers: Iterable[Address], allowed: Callable[[socket.socket], None] | None = None) -> None:
    """Send each peer what a VM answers even where nobody listens, over the SA that is there.

    That is a datagram (ICMP says that the port is closed), and the beginning of a TCP connection
    (which is refused).

    Args:
        allowed: is called with each socket before it is used; what it raises is passed on, but for
            an OSError.
    """
    for peer in peers:
        family = socket.AF_INET if peer.version == 4 else socket.AF_INET6  # noqa: PLR2004
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as channel, contextlib.suppress(OSError):
                channel.setblocking(False)
                if allowed is not None:
                    allowed(channel)
                channel.connect((str(peer), DISCARD))
                if kind is socket.SOCK_DGRAM:
                    channel.send(b"")


def _read(path: Path) -> tuple[RememberedPeer, ...]:
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(LARGEST) or b"")
        return tuple(RememberedPeer(ip_address(key), float(seen)) for key, seen in found.items())
    except (OSError, *NOT_UNDERSTOOD):
        return ()
