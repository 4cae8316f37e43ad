"""The table beside flowtables judges what passes below every other hook as the guard does.

With a flowtable it is shown in tests/lab/test_guard_flows_esp.py: not every kernel has them.
"""

import socket

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.model import GUARD_TABLE
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.nft_image import read_image
from ipsec_agent.host.nft_table import dropped as dropped_by
from ipsec_agent.host.nft_wire import NFPROTO_NETDEV, Channel
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    C4,
    GUARD,
    PLAIN4,
    PLAIN6,
    SNAT,
    A,
    B,
    C,
    Capture,
    arrived,
    as_nobody,
    flow_table,
    ipv4,
    receiver,
    run,
    send_ip,
    send_raw,
    send_udp,
    silent,
    udp_header,
)
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

UDP = socket.IPPROTO_UDP


def judge(*links: str, forced: bool = False) -> None:
    """Put the table in place on A, and nothing else."""
    guard = replace(GUARD, force_encapsulation=forced)
    run("nft", "-f", "-", ns=A, text=flow_table(*links, guard=guard))


def dropped() -> int:
    """Packets that it dropped."""
    with inside(A), Channel() as channel:
        image = read_image(channel, NFPROTO_NETDEV, GUARD_TABLE, ())
    assert image is not None
    return dropped_by(image)


def test_a_translated_container_is_held(below: Capture) -> None:
    """On the way out and on the way in, once the table stands, and not before."""
    run("nft", "-f", "-", ns=A, text=SNAT)
    with receiver(B, B4) as at_b, receiver(C, C4, 7000) as at_c:
        assert send_udp(C, C4, B4, ports=(7000, 9))
        assert arrived(at_b)
        assert send_udp(B, B4, A4, b"answer", ports=(9, 7000))
        assert arrived(at_c)
        assert len(below.between(A4, B4, 1)) == 1

        judge("a0")

        assert send_udp(C, C4, B4, ports=(7000, 9))
        assert send_udp(B, B4, A4, b"answer", ports=(9, 7000))
        assert silent(at_b)
        assert silent(at_c)
    assert not below.between(A4, B4)
    assert dropped() == 2


def test_ike_of_a_container_is_none(below: Capture) -> None:
    """From the VM's address and port 4500, behind the marker: no program of this VM sent it."""
    run("nft", "-f", "-", ns=A, text=SNAT)
    ike = bytes(4) + b"clear"
    assert send_udp(C, C4, B4, ike, ports=(4500, 4500))
    assert len(below.between(A4, B4, 1)) == 1
    judge("a0")
    assert send_udp(C, C4, B4, ike, ports=(4500, 4500))
    assert not below.between(A4, B4)


@pytest.mark.parametrize(("one", "other", "plain"), [(A4, B4, PLAIN4), (A6, B6, PLAIN6)])
def test_what_the_guard_lets_pass_passes(below: Capture, one: str, other: str, plain: str) -> None:
    """ESP, root's IKE, what is to be clear, and neighbour discovery before each; no more."""
    judge("a0")
    assert send_raw(A, one, other, 50, bytes(40))
    assert send_udp(A, one, other, ports=(500, 500))
    assert send_udp(A, one, other, bytes(4) + b"ike", ports=(4500, 4500))
    assert send_udp(A, one, plain)
    assert len([it for it in below.udp(3) if it.target in {other, plain}]) == 3
    with receiver(A, one) as at_a:
        assert send_udp(B, plain, one)
        assert arrived(at_a)
        assert send_udp(B, other, one)
        assert silent(at_a)
    before = dropped()
    assert send_udp(A, one, other, b"not ESP", ports=(4500, 4500))
    assert not below.between(one, other)
    assert dropped() - before == 1


def test_ike_is_roots(below: Capture) -> None:
    """Another user's datagrams on its port are not."""
    judge("a0")
    as_nobody(A, A4, B4, bytes(4) + b"clear", 4500)
    assert not below.between(A4, B4)
    assert dropped() == 1


def test_esp_in_udp(below: Capture) -> None:
    """With forced encapsulation it cannot be told from data."""
    judge("a0", forced=True)
    assert send_udp(A, A4, B4, b"\1\2\3\4 ESP", ports=(4500, 4500))
    assert len(below.between(A4, B4, 1)) == 1


def test_fragments_are_the_guards(below: Capture) -> None:
    """No flowtable takes any, and IKE may come in some."""
    judge("a0")
    assert send_ip(A, B4, ipv4(A4, B4, UDP, udp_header((500, 500), bytes(2000))[:1400]))
    assert send_ip(A, B4, ipv4(A4, B4, UDP, bytes(64), offset=1480))
    assert len(below.between(A4, B4, 2)) == 2


async def test_it_is_loaded_read_and_taken_away() -> None:
    """Known by its mark until somebody alters it; `guard down` takes both tables away."""
    text = flow_table("a0", "ac0")

    async def stands() -> str | None:
        found = await nft.read()
        assert found is not None
        return found.flow_rules

    with inside(A):
        nft = Nft()
        await nft.load(ruleset(GUARD))
        assert await stands() is None
        await nft.load_flow_rules(text)
        send_udp(A, A4, B4)
        assert await stands() == mark(text)
        run("nft", "flush chain netdev ipsec_agent out4", ns=A)
        assert await stands() == ""
        await nft.load_flow_rules(text)
        assert await stands() == mark(text)
        await nft.load_flow_rules("")
        assert await stands() is None

        await nft.load_flow_rules(text)
        await nft.delete()
        assert await nft.read() is None
    assert "ipsec_agent" not in run("nft", "list", "tables", ns=A)


async def test_a_refused_one_leaves_the_old_one() -> None:
    """All of it is one transaction."""
    text = flow_table("a0")
    with inside(A):
        nft = Nft()
        await nft.load(ruleset(GUARD))
        await nft.load_flow_rules(text)
        with pytest.raises(KernelError, match="cannot filter what flowtables forward"):
            await nft.load_flow_rules(text.replace("egress", "nowhere"))
        found = await nft.read()
    assert found is not None
    assert found.flow_rules == mark(text)
