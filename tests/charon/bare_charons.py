"""VMs with a charon and no agent, and what an agent would load into it."""

import contextlib
import subprocess
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from ipaddress import ip_network
from pathlib import Path

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
from ipsec_agent.host.charon import CharonClient
from ipsec_agent.host.charon_start import write_conf
from ipsec_agent.host.vici_wire import ViciConnection
from tests.charon.nodes import CHARON, DEADLINE, Node, listens, until
from tests.configs import config
from tests.forge import Forged


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


@contextlib.contextmanager
def both(
    nodes: Sequence[Node], start: Callable[[Vm], subprocess.Popen[bytes]] = Vm.start
) -> Iterator[tuple[Vm, Vm]]:
    """Run a charon on each of two VMs."""
    pair = Vm(nodes[0], "10.9.0.1"), Vm(nodes[1], "10.9.0.2")
    running = [start(vm) for vm in pair]
    try:
        for vm in pair:
            until(partial(listens, vm.vici), f"charon of {vm.address}")
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
