"""Flowtables, which forward connections past IPsec and the guard: named, and held."""

import contextlib
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.flow_rules import flow_rules
from ipsec_agent.core.guard_table import exempt_update, mark, ruleset
from ipsec_agent.core.model import Desired, DesiredGuard
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.plan import plan
from ipsec_agent.core.steps import GuardFlows
from ipsec_agent.guard_status import read_guard_status
from ipsec_agent.host.links import open_links
from ipsec_agent.host.nft import Nft
from tests.kernel.guard_lab import (
    A4,
    B4,
    C4,
    GUARD,
    SCALE,
    SNAT,
    A,
    B,
    C,
    Capture,
    arrived,
    flow_table,
    link,
    load,
    receiver,
    run,
    silent,
    table,
)
from tests.lab.namespaces import inside
from tests.lab.test_guard_esp import secure

pytestmark = [pytest.mark.esp, pytest.mark.timeout(200), pytest.mark.usefixtures("guarded")]

FLOWTABLE = """table inet fast {
flowtable f { hook ingress priority 0; devices = { a0, ac0 }; }
chain forward { type filter hook forward priority 0; meta l4proto udp flow add @f; }; }
"""
MAPPED = (A4, 7000)
"""What masquerade makes of the container's socket."""

FLOWTABLE_GONE = "flush chain inet fast forward; delete flowtable inet fast f"
"""As the problem's hint says; a flowtable that rules use cannot be deleted alone."""


@contextlib.contextmanager
def container() -> Iterator[socket.socket]:
    """A container's socket on port 7000."""
    with inside(C):
        opened = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    with opened:
        opened.bind((C4, 7000))
        yield opened


def talk(client: socket.socket, at_b: socket.socket) -> None:
    """Four datagrams, each answered: the flowtable has the connection after that."""
    at_b.settimeout(4 * SCALE)
    for _ in range(4):
        client.sendto(b"before", (B4, 9))
        _, mapped = at_b.recvfrom(99)
        assert mapped == MAPPED
        at_b.sendto(b"answer", mapped)
        assert arrived(client) == b"answer"


def bypass(client: socket.socket, wire: Capture) -> int:
    """Have a datagram bypass the guard; how many were held before.

    A route that changes meanwhile has the kernel take one packet the usual way, and offload the
    next one again (nf_flow_table_ip.c: nf_flow_dst_check).
    """
    for held in range(5):
        client.sendto(b"offloaded", (B4, 9))
        if wire.between(A4, B4):
            return held
    raise AssertionError("nothing bypasses the guard")


async def test_a_flowtable_is_named_and_without_it_the_guard_holds(
    wire: Capture, tmp_path: Path
) -> None:
    """A connection from before the guard goes on past it, as long as there is a flowtable."""
    run("nft", "-f", "-", ns=A, text=SNAT + "\n" + FLOWTABLE)
    with container() as client, receiver(B, B4) as at_b:
        talk(client, at_b)
        load(A, more=exempt_update([link(A, "ac0")]))
        wire.packets()

        held = bypass(client, wire)
        with inside(A):
            found = await Nft().read()
            notes = (await read_guard_status(Nft(), None, tmp_path / "guard.nft")).notes
        assert found is not None
        assert found.flowtables == ("inet fast f",)
        assert [note for note in notes if "`nft delete flowtable inet fast f`" in note]

        run("nft", FLOWTABLE_GONE, ns=A)
        for _ in range(3):
            client.sendto(b"judged", (B4, 9))

        assert not wire.between(A4, B4)
        assert table(A).dropped_out == held + 3
    with inside(A):
        found = await Nft().read()
    assert found is not None
    assert found.flowtables == ()


async def test_a_connection_from_before_is_held(below: Capture) -> None:
    """Both ways, by what the plan loads as soon as the flowtable is seen; it goes with it."""
    run("nft", "-f", "-", ns=A, text=SNAT + "\n" + FLOWTABLE)
    text = ruleset(GUARD)
    wish = Desired(
        guard=DesiredGuard(text, mark(text), (link(A, "ac0"),), flow_rules(GUARD)), placed=False
    )
    nft = Nft()

    async def flow_steps() -> tuple[GuardFlows, ...]:
        with inside(A):
            async with open_links() as links:
                network = await links.facts()
            read = await nft.read()
        seen = Observed(guard=read, network=network, saved_guard=mark(text))
        found = plan(Drift(wish, seen))
        assert all(isinstance(step, GuardFlows) for step in found)
        for step in found:
            assert isinstance(step, GuardFlows)
            with inside(A):
                await nft.load_flow_rules(step.text)
        return tuple(step for step in found if isinstance(step, GuardFlows))

    with container() as client, receiver(B, B4) as at_b:
        talk(client, at_b)
        with inside(A):
            await nft.load(text, [link(A, "ac0")])
        below.packets()
        bypass(client, below)
        at_b.sendto(b"forged", MAPPED)
        assert arrived(client) == b"forged"

        (step,) = await flow_steps()

        assert '"a0"' in step.text
        assert '"ac0"' not in step.text
        assert await flow_steps() == ()
        for _ in range(5):
            client.sendto(b"held", (B4, 9))
            at_b.sendto(b"forged", MAPPED)
        assert silent(client)
        assert not below.between(A4, B4)
        with inside(A):
            found = await nft.read()
        assert found is not None
        assert found.offloaded == 10

        run("nft", FLOWTABLE_GONE, ns=A)
        assert await flow_steps() == (GuardFlows(""),)
        assert await flow_steps() == ()


@pytest.mark.parametrize("held", [False, True])
def test_a_translated_connection_through_ipsec(below: Capture, *, held: bool) -> None:
    """A flowtable remembers its route from before it was translated, which has no IPsec.

    Without the table beside it, its packets leave in clear though guard and policies are up.
    """
    run("nft", "-f", "-", ns=A, text=SNAT + "\n" + FLOWTABLE)
    secure(A4, B4)
    load(A, more=exempt_update([link(A, "ac0")]))
    if held:
        run("nft", "-f", "-", ns=A, text=flow_table("a0"))
    with container() as client, receiver(B, B4):
        for _ in range(6):
            client.sendto(b"translated", (B4, 9))
    clear = [seen for seen in below.between(A4, B4) if seen.protocol != socket.IPPROTO_ESP]
    assert bool(clear) is not held
