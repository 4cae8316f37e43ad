"""What peers say to another certificate, asked before it is in force, with real charons."""

import asyncio
import time
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.model import Connection
from ipsec_agent.core.rehearsal import NAME, Answer
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.rehearsals import WAIT, Rehearsals
from ipsec_agent.host.vici_wire import open_vici
from tests.certificates import ec_key
from tests.charon.bare_charons import Vm, both, connection, credentials, load
from tests.charon.nodes import DEADLINE, SCALE, network
from tests.verdict_table import BY_NAME
from tests.verdicts import leaf, root

pytestmark = pytest.mark.charon


@pytest.fixture
def vms(tmp_path: Path) -> Iterator[tuple[Vm, Vm]]:
    """Two VMs."""
    with network(tmp_path, 2, "rh") as nodes, both(nodes) as pair:
        yield pair


def named(made: Connection, peer: str) -> Connection:
    """The connection of a rehearsal."""
    return replace(made, name=f"{NAME}{peer}", remote=ip_network(peer))


async def nothing_left(client: CharonClient, before: tuple[str, ...]) -> None:
    """Wait until charon has no IKE_SA, and only these connections."""
    for _ in range(int(50 * SCALE)):
        if not await client.sas():
            break
        await asyncio.sleep(0.1)
    assert await client.sas() == ()
    assert tuple(one.name for one in await client.connections()) == before


async def test_what_peers_say(vms: tuple[Vm, Vm]) -> None:
    """One accepts a certificate, refuses that of a CA it does not know; one that is not there is
    silent. Nothing of it stays, and what is loaded is what was.
    """
    one, other = vms
    chain, unknown = BY_NAME["an intermediate behind the leaf"].make(), root("Other", key=ec_key(3))
    strange = leaf(unknown, "VM 1", key=ec_key(78))
    above = (*chain.behind[-1:], *chain.cas)[0]
    theirs, ours = leaf(above, "VM 2", key=ec_key(8)), leaf(above, "VM 1", key=ec_key(77))
    async with open_vici(one.vici, DEADLINE) as first, open_vici(other.vici, DEADLINE) as peer:
        await load(peer, connection(other, one, theirs, chain.cas), theirs, chain.behind)
        own = connection(one, other, ours, chain.cas)
        in_force = await load(first, own, ours, chain.behind)
        client, there = CharonClient(first), CharonClient(peer)
        rehearsals = Rehearsals(one.vici, DEADLINE)
        until_then = time.monotonic() + 60 * SCALE

        async def asked(made: Connection) -> tuple[Answer, bool]:
            """The answer, and whether the key of the rehearsal was hidden meanwhile."""
            task = asyncio.create_task(rehearsals.ask(made, until_then))
            hidden = True
            while not task.done():
                hidden &= rehearsals.without(await client.keys()) == (in_force.key_id,)
                await asyncio.sleep(0.02)
            return task.result(), hidden

        good = named(connection(one, other, chain.leaf, chain.cas), other.address)
        async with rehearsals.using(credentials(chain.leaf, chain.behind)):
            assert await asked(good) == (Answer.ACCEPTED, True)
            began = time.monotonic()
            assert await asked(named(good, "10.9.0.9")) == (Answer.SILENT, True)
            assert time.monotonic() - began < WAIT + 3 * SCALE
        odd = connection(one, other, strange, (*chain.cas, unknown))
        async with rehearsals.using(credentials(strange, ())):
            assert await asked(named(odd, other.address)) == (Answer.REFUSED, True)
        assert await rehearsals.ask(good, time.monotonic()) is Answer.TOO_LATE
        await nothing_left(client, (own.name,))
        await nothing_left(there, (own.name,))
        assert await client.keys() == (in_force.key_id,)
        assert rehearsals.names == frozenset()


async def test_a_peer_that_rehearses_meanwhile(vms: tuple[Vm, Vm]) -> None:
    """charon takes the SA that the peer has begun by the same connection for its own request; that
    the peer ends it is no refusal.
    """
    one, other = vms
    chain = BY_NAME["an intermediate behind the leaf"].make()
    async with open_vici(one.vici, DEADLINE) as first, open_vici(other.vici, DEADLINE) as peer:
        there = CharonClient(peer)
        ours, theirs = (
            named(connection(*it, chain.leaf, chain.cas), it[1].address)
            for it in ((one, other), (other, one))
        )
        await load(first, ours, chain.leaf, chain.behind)
        await load(peer, theirs, chain.leaf, chain.behind)
        assert await there.establish(theirs.name, DEADLINE / 2)

        asked = asyncio.create_task(
            Rehearsals(one.vici, DEADLINE).ask(ours, time.monotonic() + 20 * SCALE)
        )
        await asyncio.sleep(0.5 * SCALE)
        # 6.0 answers at once that it has one (controller.c: initiate_execute).
        assert asked.done() != (await there.version()).startswith("5.")
        await there.terminate_begun(theirs.name)

        assert await asked is Answer.ACCEPTED
        await nothing_left(CharonClient(first), ())


async def test_a_peer_that_asks_meanwhile(vms: tuple[Vm, Vm]) -> None:
    """Its SA is one of the rehearsal's connection, which is for that peer alone; it stays."""
    one, other = vms
    chain = BY_NAME["an intermediate behind the leaf"].make()
    async with open_vici(one.vici, DEADLINE) as first, open_vici(other.vici, DEADLINE) as peer:
        client = CharonClient(first)
        own, theirs = (
            connection(*it, chain.leaf, chain.cas) for it in ((one, other), (other, one))
        )
        trial = named(own, other.address)
        await load(first, trial, chain.leaf, chain.behind)
        await client.load_connection(replace(own, remote=ip_network("10.9.0.0/24")))
        await load(peer, theirs, chain.leaf, chain.behind)
        # Without a child, which a kernel may not have.
        assert await CharonClient(peer).establish(theirs.name, DEADLINE / 2)
        for _ in range(int(100 * SCALE)):
            if any(sa.state == "ESTABLISHED" for sa in await client.sas()):
                break
            await asyncio.sleep(0.1)
        assert {sa.name for sa in await client.sas()} == {trial.name}

        await client.terminate_begun(trial.name)
        await client.unload_connection(trial.name)
        await asyncio.sleep(1.0)

        left = [(sa.name, sa.state) for sa in await client.sas()]
        # One that carries nothing 6.0 ends with its connection.
        stays = (await client.version()).startswith("5.")
        assert left == ([(trial.name, "ESTABLISHED")] if stays else [])
