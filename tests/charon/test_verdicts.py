"""One certificate of each kind, judged by two charons with different certificates of one CA."""

import asyncio
import contextlib
from collections.abc import Iterator

import pytest

from ipsec_agent.errors import CharonRefusedError
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.vici_wire import ViciConnection, open_vici
from tests.certificates import ec_key
from tests.charon.bare_charons import Vm, both, connection, load
from tests.charon.nodes import DEADLINE, network
from tests.verdict_table import BY_NAME
from tests.verdicts import Case, leaf

pytestmark = pytest.mark.charon

SHOWN = (
    "an intermediate behind the leaf",
    "a root behind the leaf only",
    "another CA",
    "a damaged root",
    "an expired root",
    "path length 0, one intermediate",
    "7 intermediates",
    "8 intermediates",
    "its own CA",
    "UTF8String in the CA, PrintableString in the leaf",
    "the case of a PrintableString",
    "the case of a UTF8String",
    "no subject",
    "the name of its CA",
    "the id of another CA",
    "serial 0",
    "a negative serial",
    "an empty id of a CA",
    "a CA whose id is empty",
    "a sign that PrintableString has not",
    "a TeletexString of Latin-1",
    "a name of 300 letters",
    "may only encipher",
    "may do nothing",
    "may only sign certificates",
    "a CA that may not sign certificates",
    "a root signed with SHA-1",
    "a root signed with MD5",
    "ECDSA with SHA3-256",
    "RSASSA-PSS without parameters",
    "RSASSA-PSS with another trailer",
    "two algorithms of one signature",
    "an algorithm with parameters that it has not",
    "Ed25519",
    "RSA with 1024 bits",
    "a key on secp224r1",
    "a key on secp256k1",
    "a key on brainpoolP256r1",
    "critical privateKeyUsagePeriod in a vm",
    "critical privateKeyUsagePeriod in a ca",
    "critical issuerAltName",
    "the same extension twice",
    "a name of a kind that the library does not know",
    "a default that is written out",
    "anyPolicy below a CA that forbids it",
    "not permitted",
    "not permitted, not critical",
    "two permitted domains",
    "a permitted network",
    "a permitted network of a wrong size",
    "an excluded subject",
    "a CA below does not repeat it",
)
WAIT = DEADLINE / 2
"""Seconds that a handshake may take: charon sends again after 4 s what was lost."""


@pytest.fixture(scope="module")
def vms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vm, Vm]]:
    """Two VMs that all of these tests share."""
    with network(tmp_path_factory.mktemp("verdicts"), 2, "cv") as nodes, both(nodes) as pair:
        yield pair


async def forget(vici: ViciConnection) -> None:
    """End and unload everything."""
    charon = CharonClient(vici)
    for sa in await charon.sas():
        await charon.terminate(sa.unique_id, at_once=True)
    for loaded in await charon.connections():
        await charon.unload_connection(loaded.name)
    for authority in await charon.authorities():
        await charon.unload_authority(authority)
    await vici.request("clear-creds")


async def trusted(case: Case, one: Vm, other: Vm) -> bool:
    """Whether the charons load the certificates, and establish an IKE_SA with them."""
    chain = case.make()
    above = (*chain.behind[-1:], *chain.cas)[0]
    second = leaf(above, "VM 2", key=ec_key(8))
    async with open_vici(one.vici, DEADLINE) as first, open_vici(other.vici, DEADLINE) as peer:
        try:
            await load(peer, connection(other, one, second, chain.cas), second, chain.behind)
            await load(
                first, connection(one, other, chain.leaf, chain.cas), chain.leaf, chain.behind
            )
            # Without a child: where the kernel has no ESP, 6.0 ends the IKE_SA with it.
            with contextlib.suppress(CharonRefusedError):
                await first.request("initiate", {"ike": "verdict", "timeout": f"{WAIT:.0f}000"})
            states = [[sa.state for sa in await CharonClient(vici).sas()] for vici in (first, peer)]
        except CharonRefusedError:
            return False
        finally:
            await forget(first)
            await forget(peer)
    return states == [["ESTABLISHED"], ["ESTABLISHED"]]


@pytest.fixture(scope="module")
def version(vms: tuple[Vm, Vm]) -> str:
    """The version of charon."""

    async def asked() -> str:
        async with open_vici(vms[0].vici, DEADLINE) as vici:
            return await CharonClient(vici).version()

    return asyncio.run(asked())


@pytest.mark.parametrize("name", SHOWN)
def test_verdicts(name: str, vms: tuple[Vm, Vm], version: str) -> None:
    """Two charons establish an IKE_SA exactly where the table says so."""
    case = BY_NAME[name]

    assert asyncio.run(trusted(case, *vms)) == case.trusted_by(version)
