"""The SAs with a peer: what the kernel's events tell of new ones, and of events that are lost."""

import contextlib
import errno
import os
import socket
import struct
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.errors import KernelError
from ipsec_agent.host import peer_sas
from ipsec_agent.host.peer_sas import PeerSas
from ipsec_agent.host.rtnetlink import HEADER, NLMSG_ERROR
from ipsec_agent.host.xfrm_messages import Kind
from tests.host.xfrm_made import SaInfo, sent
from tests.vm import OWN, PEER

ESRCH = struct.pack("=i", -errno.ESRCH)


def message(kind: int, body: bytes) -> bytes:
    """A message as the kernel sends it."""
    return HEADER.pack(HEADER.size + len(body), kind, 0, 1, 0) + body


def made(spi: int, *, out: bool, added: int = 0) -> bytes:
    """The SA with this SPI, as a body."""
    source, destination = (OWN, PEER) if out else (PEER, OWN)
    info = SaInfo()
    info["saddr"], info["daddr"] = (
        source.packed.ljust(16, b"\0"),
        destination.packed.ljust(16, b"\0"),
    )
    info["spi"], info["proto"], info["family"] = spi, 50, socket.AF_INET
    info["packets"], info["add_time"] = spi, added
    return sent(info).body


class Kernel:
    """The other ends of the two sockets."""

    def __init__(self) -> None:
        self.ear, self.asker = (
            socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET) for _ in range(2)
        )
        self.listed: list[bytes] = []

    def opened(self, groups: int) -> socket.socket:
        """The agent's end."""
        return (self.ear if groups else self.asker)[0]

    def tells(self, *messages: bytes) -> None:
        """Events in one datagram."""
        self.ear[1].send(b"".join(messages))

    def answers(self, *bodies: bytes | None) -> None:
        """What it will answer, None where it has no such SA."""
        for body in bodies:
            kind = NLMSG_ERROR if body is None else Kind.NEW_SA
            self.asker[1].send(message(kind, ESRCH if body is None else body))

    def close(self) -> None:
        """Close all ends."""
        for one in (*self.ear, *self.asker):
            one.close()


@pytest.fixture
def kernel(monkeypatch: pytest.MonkeyPatch) -> Iterator[Kernel]:
    """A kernel in place of the real one."""
    made_up = Kernel()
    monkeypatch.setattr(peer_sas, "_opened", made_up.opened)
    monkeypatch.setattr(peer_sas, "dump", lambda *_: made_up.listed)
    yield made_up
    made_up.close()


def test_a_new_sa_is_heard_of(kernel: Kernel) -> None:
    """No list is read for it; the newest is the last, and what its event said is asked again."""
    with PeerSas() as sas:
        kernel.tells(
            message(Kind.NEW_SA, made(7, out=True, added=9)),
            message(Kind.DELETE_SA, b""),
            message(Kind.UPDATE_SA, made(8, out=False)),
        )
        kernel.tells(message(Kind.NEW_SA, made(6, out=True, added=5)))
        kernel.answers(made(8, out=False), made(7, out=True, added=9), made(6, out=True, added=5))
        found = sas.between(OWN, PEER)
        kernel.answers(made(8, out=False), None, made(6, out=True))
        after = sas.between(OWN, PEER)

    assert [(sa.spi, sa.packets) for sa in found.outward] == [(6, 6), (7, 7)]
    assert [sa.spi for sa in found.inward] == [8]
    assert [sa.spi for sa in after.outward] == [6]


def test_lost_events(kernel: Kernel, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are listed again."""
    with PeerSas() as sas:
        monkeypatch.setattr(sas, "_hear", refuses(errno.ENOBUFS))
        kernel.listed = [made(7, out=True), made(8, out=False)]
        kernel.answers(made(8, out=False), made(7, out=True))
        assert sas.between(OWN, PEER).both

        monkeypatch.setattr(sas, "_hear", refuses(errno.ENOMEM))
        with pytest.raises(KernelError):
            sas.between(OWN, PEER)


def refuses(code: int) -> object:
    """What raises this error."""

    def raises() -> None:
        raise OSError(code, os.strerror(code))

    return raises


def test_a_refusal(kernel: Kernel) -> None:
    """It is told with the kernel's word, and no SA counts as gone for it."""
    with PeerSas() as sas:
        kernel.listed = [made(7, out=True)]
        sas.list()
        kernel.asker[1].send(message(NLMSG_ERROR, struct.pack("=i", -errno.EPERM)))
        with pytest.raises(KernelError, match="reading the SAs with peers: Operation not") as error:
            sas.between(OWN, PEER)

    assert "run as root" in error.value.hint


@given(st.binary(max_size=80), st.binary(max_size=80))
def test_what_is_not_understood(event: bytes, answer: bytes) -> None:
    """Whatever comes, there is an answer or a KernelError."""
    kernel = Kernel()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(peer_sas, "_opened", kernel.opened)
        patch.setattr(peer_sas, "dump", lambda *_: [made(7, out=True)])
        try:
            with PeerSas() as sas:
                sas.list()
                kernel.tells(message(Kind.NEW_SA, event))
                kernel.asker[1].send(answer or b"x")
                with contextlib.suppress(KernelError):
                    assert not sas.between(OWN, PEER).inward
        finally:
            kernel.close()
