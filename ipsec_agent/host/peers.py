"""The peers that had an SA with this VM, in a file, and packets that wake one up, or test it."""

import contextlib
import errno
import json
import socket
import time
from collections.abc import Callable, Iterable
from ipaddress import ip_address
from pathlib import Path
from types import TracebackType
from typing import Self

from ipsec_agent.core.clock import LATEST
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular, write_whole
from ipsec_agent.host.socket_policy import forget_route
from ipsec_agent.host.understood import NOT_UNDERSTOOD

DISCARD = 9
"""The port to which a poke goes: who listens there throws it away (RFC 863)."""

LARGEST = 1 << 20


class PeerMemory:
    """The file of peers, and which of them were poked since charon started."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._peers: tuple[RememberedPeer, ...] | None = None
        self._charon = ""
        self._poked: dict[Address, float] = {}

    def peers(self, charon: CharonProcess | None) -> tuple[RememberedPeer, ...]:
        """The peers; what cannot be read is forgotten, which costs a peer the wait for its DPD."""
        which = charon.identity if charon else ""
        if which != self._charon:
            self._charon, self._poked = which, {}
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
            # There may be no descriptor left for a socket, too.
            with (
                contextlib.suppress(OSError),
                socket.socket(family, socket.SOCK_DGRAM) as channel,
            ):
                channel.setblocking(False)
                channel.sendto(b"", (str(peer), DISCARD))


def probe(peers: Iterable[Address]) -> None:
    """Send each peer what a VM answers even where nobody listens, over the SA that is there."""
    for peer in peers:
        Knock(peer).close()


class Knock:
    """What a VM answers even where nobody listens.

    That is a datagram (ICMP says that the port is closed), and the beginning of a TCP connection
    (which is refused).
    """

    def __init__(
        self, peer: Address, allowed: Callable[[socket.socket], None] | None = None
    ) -> None:
        """Send both; what cannot be sent is lost.

        Args:
            allowed: is called with each socket before it is used; what it raises is passed on.
        """
        family = socket.AF_INET if peer.version == 4 else socket.AF_INET6  # noqa: PLR2004
        self._sockets: list[socket.socket] = []
        try:
            for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
                try:
                    channel = socket.socket(family, kind)
                except OSError:
                    # There may be no descriptor left for it.
                    continue
                self._sockets.append(channel)
                channel.setblocking(False)
                if allowed is not None:
                    allowed(channel)
                with contextlib.suppress(OSError):
                    channel.connect((str(peer), DISCARD))
                    if kind is socket.SOCK_DGRAM:
                        channel.send(b"")
                if allowed is not None and kind is socket.SOCK_DGRAM:
                    forget_route(channel)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close the sockets; answers that come later are heard by nobody."""
        for channel in self._sockets:
            channel.close()

    @property
    def answered(self) -> bool:
        """Whether the peer's kernel has said that a port is closed, or let us in."""
        return any(_answered(channel) for channel in self._sockets)


def _answered(channel: socket.socket) -> bool:
    if channel.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR) == errno.ECONNREFUSED:
        return True
    # A datagram's socket has a peer from the beginning.
    with contextlib.suppress(OSError):
        return channel.type == socket.SOCK_STREAM and bool(channel.getpeername())
    return False


def _remembered(address: str, seen: float) -> RememberedPeer:
    """One entry.

    Raises:
        ValueError: or another of NOT_UNDERSTOOD: it is none of ours.
    """
    if not 0 <= seen < LATEST:
        raise ValueError(seen)
    return RememberedPeer(ip_address(address), float(seen))


def _read(path: Path) -> tuple[RememberedPeer, ...]:
    try:
        with open_regular(path) as file:
            found = json.loads(file.read(LARGEST) or b"")
        return tuple(_remembered(key, seen) for key, seen in found.items())
    except (OSError, *NOT_UNDERSTOOD):
        return ()
