"""The SAs with a peer, and what a socket may send: a real kernel, in a namespace of the test's own.

SAs with keys need a kernel with ESP (tests/lab/test_proof.py); here stand reserved SPIs.
"""

import asyncio
import errno
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from ipsec_agent.core.proof import Pair, Window
from ipsec_agent.host import peer_sas
from ipsec_agent.host.capture import Capture
from ipsec_agent.host.echo import Echo
from ipsec_agent.host.peer_sas import PeerSas, Ways
from ipsec_agent.host.peers import Knock
from ipsec_agent.host.socket_policy import require_esp
from ipsec_agent.host.xfrm_messages import NETLINK_XFRM
from ipsec_agent.verification import Shared, prove
from tests.charon.nodes import Node, ip, network
from tests.core.test_status import states
from tests.kernel.conftest import Run
from tests.lab.namespaces import inside
from tests.lab.traffic import ping

pytestmark = pytest.mark.kernel

OWN, PEER, OTHER = map(IPv4Address, ("10.0.0.1", "10.0.0.2", "10.0.0.3"))


def reserve(source: object, destination: object, spi: int) -> str:
    """A line for ip that reserves an SPI."""
    return (
        f"xfrm state allocspi src {source} dst {destination} proto esp reqid 9 mode transport"
        f" min {spi} max {spi}"
    )


def spis(ways: Ways) -> tuple[set[int], set[int]]:
    """Of both directions."""
    return {sa.spi for sa in ways.inward}, {sa.spi for sa in ways.outward}


def test_each_peer_has_its_own(namespace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """All are listed once; then each is asked for by its SPI, and one that has gone is left out."""
    lines = [
        *(reserve(OWN, PEER, 0x1000), reserve(OWN, PEER, 0x1001), reserve(PEER, OWN, 0x1002)),
        *(reserve(OWN, OTHER, 0x1003), f"{reserve(OTHER, OWN, 0x1004)} mark 7 mask 255"),
    ]
    namespace("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
    with PeerSas() as sas:
        assert spis(sas.between(OWN, PEER)) == (set(), set())
        sas.list()
        monkeypatch.setattr(peer_sas, "dump", None)
        both, alone = sas.between(OWN, PEER), sas.between(OWN, OTHER)
        namespace("ip", "xfrm", "state", "delete", "dst", str(PEER), "proto", "esp", "spi", "4096")
        after = sas.between(OWN, PEER)
        # Another peer's SPI is none of this one's.
        namespace("ip", "xfrm", "state", "delete", "dst", str(PEER), "proto", "esp", "spi", "4097")
        namespace("ip", "-batch", "-", stdin=reserve(OTHER, PEER, 0x1001) + "\n")
        taken = sas.between(OWN, PEER)

    assert (spis(both), both.both) == (({0x1002}, {0x1000, 0x1001}), True)
    assert (spis(alone), alone.both) == ((set(), {0x1003}), False)
    assert spis(after) == ({0x1002}, {0x1001})
    assert spis(taken) == ({0x1002}, set())


def test_ipv6(namespace: Run) -> None:
    """The family is that of the addresses."""
    own, peer = IPv6Address("fd00::1"), IPv6Address("fd00::2")
    lines = (reserve(own, peer, 0x1000), reserve(peer, own, 0x1001))
    namespace("ip", "-batch", "-", stdin="\n".join(lines) + "\n")
    with PeerSas() as sas:
        sas.list()
        found = sas.between(own, peer)

    assert spis(found) == ({0x1001}, {0x1000})
    assert found.outward[0].reqid == 9


Ends = tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]


@pytest.fixture(params=[4, 6])
def vms(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[Node], Ends]]:
    """Two VMs without agents and policies, and their addresses."""
    version = request.param
    with network(tmp_path, 2, "ps", version=version) as nodes:
        form = "10.9.0.{}" if version == 4 else "fd09::{}"
        own, peer = ip_address(form.format(1)), ip_address(form.format(2))
        # What is sent to a neighbour that is not known yet waits: a second, where the link was not
        # ready for the first question.
        assert ping(nodes[0].name, str(peer), 3).arrived
        yield nodes, (own, peer)


def test_a_socket_that_requires_esp(vms: tuple[list[Node], Ends]) -> None:
    """Without an SA nothing of it leaves; other sockets send as ever."""
    (node, other), (own, peer) = vms
    family = socket.AF_INET if own.version == 4 else socket.AF_INET6
    with inside(other.name):
        capture = Capture(peer, own)
    with capture, inside(node.name):
        for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
            with socket.socket(family, kind) as channel:
                require_esp(channel, 9)
                with pytest.raises(OSError, match=r"unavailable") as raised:
                    channel.connect((str(peer), 9))
                assert raised.value.errno == errno.EAGAIN
        with Knock(peer, lambda channel: require_esp(channel, 9)) as knock:
            time.sleep(0.5)
            held = knock.answered, capture.take()
        with Knock(peer) as knock:
            time.sleep(0.5)
            passed = knock.answered, capture.take()

    assert (held[0], held[1].clear_in, held[1].clear_out) == (False, 0, 0)
    # A datagram, a connection, and an answer to each.
    assert (passed[0], passed[1].clear_in, passed[1].clear_out) == (True, 2, 2)


POLICY = "xfrm policy add src {}/{} dst {}/{} dir out tmpl proto esp reqid 9 mode transport"
ACQUIRES = 1
"""The group to which the kernel tells that an SA is wanted: where nobody hears it, it asks none."""


@pytest.mark.parametrize("kind", ["echo", "knock"])
def test_a_socket_that_is_closed(vms: tuple[list[Node], Ends], kind: str) -> None:
    """Its route is no longer good, and it asks for no SA with the next one."""
    (node, _), (own, peer) = vms
    length = own.max_prefixlen
    with inside(node.name):
        listener = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM)
        used = Echo(own, peer, lambda _: None) if kind == "echo" else Knock(peer, lambda _: None)
    with listener, used:
        if isinstance(used, Echo):
            assert used.send() == 1
        listener.bind((0, ACQUIRES))
        ip(*POLICY.format(own, length, peer, length).split(), netns=node.name)
    left = ip("xfrm", "state", netns=node.name)
    assert left == ""


class Ending:
    """The SAs with a peer, as the kernel tells it so often; then there are none."""

    def __init__(self, asked: int) -> None:
        self.asked = asked

    def between(self, own: object, peer: object) -> Ways:
        """The SAs of now."""
        self.asked -= 1
        out, into = states(1, 1)
        assert own != peer
        return Ways((into,), (out,)) if self.asked >= 0 else Ways()


@pytest.mark.parametrize("optional", [False, True])
@pytest.mark.parametrize(("asked", "echoes"), [(0, 0), (1, 0), (2, 1), (5, 2), (7, 4)])
def test_a_proof_sends_by_an_sa_only(
    vms: tuple[list[Node], Ends], asked: int, echoes: int, *, optional: bool
) -> None:
    """It looks before each packet and ends with the SA; where packets without one would be clear,
    the kernel refuses them, too."""
    (node, other), (own, peer) = vms
    pair = Pair(peer, own, encrypted=True, because="", optional=optional)

    async def proved() -> object:
        sas = Ending(asked)

        async def said() -> dict[str, object]:
            await asyncio.sleep(0)
            return {}

        return await prove(pair, own, sas, Shared(said))  # type: ignore[arg-type] # a fake

    with inside(other.name):
        capture = Capture(peer, own)
    with capture, inside(node.name):
        found = asyncio.run(proved())
        time.sleep(0.3)
        window: Window = capture.take()

    assert found is None
    # No ESP here: what leaves is clear. Three looks are before no echo: whether there are SAs,
    # and what they count.
    assert window.clear_in == (0 if optional else echoes)
