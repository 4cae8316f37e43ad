"""One certificate of each kind, judged by two charons with different certificates of one CA."""

import asyncio
import contextlib
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_network
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import serialization

from ipsec_agent.core.config import AgentConfig, CharonConfig
from ipsec_agent.core.model import (
    Action,
    Authority,
    Child,
    Connection,
    Credentials,
    IkeSettings,
    Secret,
    TrafficSelector,
)
from ipsec_agent.errors import CharonRefusedError
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.charon_start import write_conf
from ipsec_agent.host.vici_wire import ViciConnection, open_vici
from tests.certificates import ec_key
from tests.charon.nodes import CHARON, DEADLINE, SCALE, Node, network, until
from tests.configs import config
from tests.forge import Forged
from tests.verdict_table import CASES
from tests.verdicts import Case, leaf

pytestmark = pytest.mark.charon

SHOWN = (
    "an intermediate behind the leaf",
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
    "may only encipher",
    "a CA that may not sign certificates",
    "a root signed with SHA-1",
    "a root signed with MD5",
    "ECDSA with SHA3-256",
    "Ed25519",
    "RSA with 1024 bits",
    "a key on secp224r1",
    "a key on secp256k1",
    "a key on brainpoolP256r1",
    "critical privateKeyUsagePeriod in a vm",
    "critical privateKeyUsagePeriod in a ca",
    "critical issuerAltName",
    "the same extension twice",
    "anyPolicy below a CA that forbids it",
    "not permitted",
    "not permitted, not critical",
    "two permitted domains",
    "a permitted network",
    "an excluded subject",
    "a CA below does not repeat it",
)
BY_NAME = {case.name: case for case in CASES}
WAIT = 4.0 * SCALE
"""Seconds that a handshake may take."""


@dataclass(frozen=True, slots=True)
class Vm:
    """A VM with a charon and no agent."""

    node: Node
    address: str

    @property
    def vici(self) -> Path:
        """charon's socket."""
        return self.node.directory / "charon.vici"

    def start(self) -> subprocess.Popen[bytes]:
        """Start charon as the agent configures it."""
        log = str(self.node.directory / "charon.log")
        settings = config(agent=AgentConfig(charon=CharonConfig(log=log, program=CHARON)))
        conf = self.node.directory / "strongswan.conf"
        write_conf(conf, settings, vici_socket=self.vici)
        inside = f"mount -t tmpfs tmpfs /run; STRONGSWAN_CONF={conf} exec {CHARON}"
        return subprocess.Popen(
            self.node.command("sh", "-c", inside),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )


@pytest.fixture(scope="module")
def vms(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Vm, Vm]]:
    """Two VMs that all of these tests share."""
    with network(tmp_path_factory.mktemp("verdicts"), 2, "cv") as nodes:
        pair = (Vm(nodes[0], "10.9.0.1"), Vm(nodes[1], "10.9.0.2"))
        running = [vm.start() for vm in pair]
        try:
            for vm in pair:
                until(vm.vici.exists, f"charon of {vm.address}")
            yield pair
        finally:
            for program in running:
                program.kill()
                program.wait(DEADLINE)


def connection(own: Vm, other: Vm, certificate: Forged, cas: tuple[Forged, ...]) -> Connection:
    """What an agent loads to renew the SAs with one peer."""
    child = Child(
        "child",
        Action.ENCRYPT,
        TrafficSelector(ip_network(own.address)),
        TrafficSelector(ip_network(other.address)),
    )
    settings = IkeSettings(
        ike_proposals=("aes128gcm16-prfsha256-x25519",),
        esp_proposals=(),
        force_encapsulation=False,
        dpd_delay=30,
        certificate=certificate.der,
        authorities=tuple(ca.der for ca in cas),
    )
    return Connection("verdict", Action.ENCRYPT, ip_network(other.address), (child,), settings)


def credentials(key: Forged, behind: tuple[Forged, ...]) -> Credentials:
    """What charon is given of a certificate and those behind it."""
    secret = key.key.private_bytes(
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    key_id = x509.SubjectKeyIdentifier.from_public_key(key.key.public_key()).digest.hex()
    return Credentials(key_id, Secret(secret), (), tuple(one.der for one in behind))


async def load(
    vici: ViciConnection, case: Connection, key: Forged, behind: tuple[Forged, ...]
) -> Credentials:
    """Give charon all that an agent gives it, in the same order."""
    charon = CharonClient(vici)
    assert case.settings is not None
    for number, ca in enumerate(case.settings.authorities):
        await charon.load_authority(Authority(f"ca-{number}", ca))
    given = credentials(key, behind)
    await charon.load_key(given)
    await charon.load_renewal(case)
    return given


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
            # Where the kernel has no ESP, the child fails and the IKE_SA stays.
            with contextlib.suppress(CharonRefusedError):
                await first.request(
                    "initiate", {"ike": "verdict", "child": "child", "timeout": f"{WAIT:.0f}000"}
                )
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
