"""The SAs with each peer: listed once, then told by the kernel's events, each read by its SPI.

So a peer costs the same among many as alone: a list of all SAs would be read for each of them.
Nothing here waits: the kernel answers within the call (xfrm_user.c).
"""

import contextlib
import errno
import socket
import struct
from types import TracebackType
from typing import Self

from msgspec import Struct

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.host.netlink_errors import translated
from ipsec_agent.host.rtnetlink import (
    BUFFER,
    DEADLINE,
    answer_to,
    dump,
    messages,
    request,
)
from ipsec_agent.host.xfrm_messages import NETLINK_XFRM, Group, Kind
from ipsec_agent.host.xfrm_records import ESP, family_of, state_of
from ipsec_agent.host.xfrm_wire import LACKING

_ID = struct.Struct("=16s4sHBx")
"""`struct xfrm_usersa_id`."""

_DOING = "reading the SAs with peers"


class Ways(Struct, frozen=True):
    """The SAs between this VM and a peer, the newest last."""

    inward: tuple[SecurityAssociation, ...] = ()
    outward: tuple[SecurityAssociation, ...] = ()

    @property
    def both(self) -> bool:
        """Whether there is one each way."""
        return bool(self.inward and self.outward)


class PeerSas:
    """Two sockets: one asks for SAs, one hears of new ones."""

    def __init__(self) -> None:
        """Open them.

        Raises:
            KernelError: not root, or the kernel has no XFRM.
        """
        self._spis: dict[tuple[Address, Address], dict[int, None]] = {}
        with translated(_DOING, LACKING), contextlib.ExitStack() as opened:
            self._ear = opened.enter_context(_opened(1 << (Group.SA - 1)))
            self._ear.setblocking(False)
            self._asker = opened.enter_context(_opened(0))
            self._opened = opened.pop_all()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self._opened.close()

    def list(self) -> None:
        """Learn of the SAs that are there; it takes as long as there are many.

        Raises:
            KernelError: the kernel refuses, or its answer is not understood.
        """
        with translated(_DOING, LACKING):
            for body in dump(self._asker, Kind.GET_SA, b""):
                self._learn(body)

    def between(self, own: Address, peer: Address) -> Ways:
        """The SAs of now, as the kernel counts them.

        Raises:
            KernelError: the kernel refuses, or its answer is not understood.
        """
        with translated(_DOING, LACKING):
            try:
                self._hear()
            except OSError as error:
                if error.errno != errno.ENOBUFS:
                    raise
                # Some events were lost: which ones is not known.
                self.list()
            return Ways(self._now(peer, own), self._now(own, peer))

    def _hear(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                for kind, _, body in messages(self._ear.recv(BUFFER)):
                    if kind in {Kind.NEW_SA, Kind.UPDATE_SA}:
                        self._learn(body)

    def _learn(self, body: bytes) -> None:
        sa = state_of(body)
        # Larval ones have no SPI by which to ask for them.
        if sa is not None and sa.spi:
            self._spis.setdefault((sa.source, sa.destination), {})[sa.spi] = None

    def _now(self, source: Address, destination: Address) -> tuple[SecurityAssociation, ...]:
        known = self._spis.get((source, destination), {})
        found = []
        for spi in tuple(known):
            sa = self._ask(destination, spi)
            if sa is None or sa.source != source:
                del known[spi]
            else:
                found.append(sa)
        return tuple(sorted(found, key=lambda sa: sa.added))

    def _ask(self, destination: Address, spi: int) -> SecurityAssociation | None:
        """The SA with this name; None where there is none any more."""
        family = family_of(destination)
        body = _ID.pack(destination.packed, spi.to_bytes(4, "big"), family, ESP)
        self._asker.send(request(Kind.GET_SA, body))
        try:
            return state_of(answer_to(self._asker.recv(BUFFER)))
        except OSError as error:
            if error.errno == errno.ESRCH:
                return None
            raise


def _opened(groups: int) -> socket.socket:
    channel = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
    try:
        channel.settimeout(DEADLINE)
        channel.bind((0, groups))
    except OSError:
        channel.close()
        raise
    return channel
