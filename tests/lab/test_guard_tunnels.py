"""The guard and SAs that are no host's own: what they carry between encrypted addresses is dropped.

Fixed SAs, as a peer that lies would have them negotiated, or as root could make them.
"""

from dataclasses import dataclass

import pytest

from ipsec_agent.core.closed_table import CLOSED
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    PLAIN4,
    A,
    B,
    Capture,
    arrived,
    load,
    receiver,
    run,
    send_udp,
    silent,
    table,
)

pytestmark = [pytest.mark.esp, pytest.mark.timeout(200), pytest.mark.usefixtures("guarded")]

ESP = 50
KEY = "0x" + "0102030405" * 4
SECRET, OTHER_SECRET = b"meant for others", b"sealed, and in no tunnel"


@dataclass(frozen=True, slots=True)
class Way:
    """How packets from A to B travel: the SAs from the innermost to the outermost.

    Attributes:
        modes: of the SAs.
        outer, inner: addresses of A and B, of the SAs and of the packets.
    """

    modes: tuple[str, ...] = ("tunnel",)
    outer: tuple[str, str] = (A4, B4)
    inner: tuple[str, str] = (A4, B4)

    @property
    def name(self) -> str:
        """For the test's name."""
        versions = (6 if ":" in one[0] else 4 for one in (self.inner, self.outer))
        return "{1}, {0[0]} in {0[1]}".format([*versions], " in ".join(self.modes))


FOUR, SIX = (A4, B4), (A6, B6)
LONG = pytest.mark.long
REFUSED = (
    Way(),
    Way(outer=SIX),
    Way(inner=SIX),
    Way(("transport", "transport")),
    pytest.param(Way(outer=SIX, inner=SIX), marks=LONG),
    pytest.param(Way(("beet",)), marks=LONG),
    pytest.param(Way(("tunnel", "transport")), marks=LONG),
    pytest.param(Way(("transport", "tunnel"), SIX, FOUR), marks=LONG),
)


def establish(way: Way) -> None:
    """The SAs and the policies that require them, from A to B."""
    ends = "src {} dst {}".format(*way.inner)
    hosts = "src {} dst {}".format(*way.outer)
    states, templates = [], ""
    for number, mode in enumerate(way.modes):
        # In transport mode an SA has the addresses of the packet that it gets.
        tunnelled = "transport" != mode or "tunnel" in way.modes[:number]
        between = hosts if tunnelled else ends
        # Without one the kernel takes an SA to be for packets of its own addresses' family.
        selector = "" if mode == "transport" else f" sel {ends}"
        states.append(
            f"xfrm state add {between} proto esp spi {0x1000 + number} reqid {number + 7}"
            f" mode {mode} aead rfc4106(gcm(aes)) {KEY} 128{selector}"
        )
        templates += f" tmpl {between} proto esp reqid {number + 7} mode {mode}"
    for ns, direction in ((A, "out"), (B, "in")):
        lines = [*states]
        if ":" in ends:
            # As charon's own exemption: neighbour discovery is none of this test's packets.
            lines += [
                f"xfrm policy add {ends} proto ipv6-icmp type {kind} dir {direction} priority 1"
                for kind in (135, 136)
            ]
        lines += [f"xfrm policy add {ends} dir {direction} priority 9{templates}"]
        run("ip", "-batch", "-", ns=ns, text="\n".join(lines) + "\n")


def sent(way: Way) -> bool:
    """Send what nobody but B may read; False where it is refused."""
    return send_udp(A, *way.inner, SECRET)


@pytest.mark.parametrize("way", REFUSED, ids=lambda way: way.name)
def test_nothing_passes_but_one_sa_in_transport_mode(wire: Capture, way: Way) -> None:
    """Neither out nor in, whatever the families; the SA's peer is counted.

    Without the rules the packet arrives: the test can fail.
    """
    establish(way)
    with receiver(B, way.inner[1]) as at_b:
        load(A, change=("goto tunnel_out\n", "accept\n"))
        load(B, change=("goto tunnel_in\n", "accept\n"))
        assert sent(way)
        assert arrived(at_b) == SECRET
        load(B)
        assert sent(way)
        load(A)
        assert not sent(way)
        assert silent(at_b)

    # What B's kernel takes out of a tunnel comes by the same link once more.
    assert len([seen for seen in wire.between(*way.outer) if seen.protocol == ESP]) == 2
    assert (table(A).dropped_out, table(B).dropped_in) == (1, 1)
    if "transport" not in way.modes or way.modes[0] == "tunnel":
        for ns, peer in ((A, way.outer[1]), (B, way.outer[0])):
            assert [str(found.address) for found in table(ns).tunnelled] == [peer]


def test_an_operators_own_vpn_lives() -> None:
    """What is not between encrypted addresses goes through a tunnel as before, nested, too."""
    load(A)
    load(B)
    for modes in (("tunnel",), ("tunnel", "transport")):
        establish(Way(modes, inner=(A4, PLAIN4)))
        with receiver(B, PLAIN4) as at_b:
            assert send_udp(A, A4, PLAIN4, OTHER_SECRET)
            assert arrived(at_b) == OTHER_SECRET
        for ns in (A, B):
            run("ip", "xfrm", "policy", "flush", ns=ns)
            run("ip", "xfrm", "state", "flush", ns=ns)
    assert (table(A).dropped_out, table(B).dropped_in) == (0, 0)


@pytest.fixture
def closed(guarded: None) -> None:
    """Both VMs are closed, as at a boot without a table."""
    for ns in (A, B):
        run("nft", "-f", "-", ns=ns, text=CLOSED)


@pytest.mark.usefixtures("closed")
@pytest.mark.parametrize("way", [Way(outer=SIX), Way(("transport",) * 2)], ids=lambda w: w.name)
def test_the_closed_table_refuses_them_too(way: Way) -> None:
    """One SA in transport mode passes, and nothing else."""
    establish(way)
    with receiver(B, way.inner[1]) as at_b:
        assert not sent(way)
        run("nft", "delete", "table", "inet", "ipsec_agent", ns=A)
        assert sent(way)
        assert silent(at_b)
        run("nft", "delete", "table", "inet", "ipsec_agent", ns=B)
        assert sent(way)
        assert arrived(at_b) == SECRET
