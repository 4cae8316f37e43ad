"""A VM of a large deployment, as the records that a pass reads: so many subnets, so many peers."""

from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, ip_network

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import CertificateFacts, Config, Subnet
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard
from ipsec_agent.core.model import (
    Action,
    Authority,
    Credentials,
    Desired,
    DesiredPolicy,
    Direction,
    PolicySelector,
    Secret,
)
from ipsec_agent.core.observed import (
    Charon,
    CharonProcess,
    ChildSa,
    IkeSa,
    Link,
    LoadedConnection,
    NetworkFacts,
    Observed,
    OwnAddress,
    Policy,
    SecurityAssociation,
)
from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.placement import Placement, place
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.swanctl import credentials_mark, fingerprint

NOW = 1_800_000_000.0
BEGAN = NOW - 1000
FIRST_PEER = int(IPv4Address("10.0.0.10"))
OWN = "10.0.0.5"
NETWORK = NetworkFacts(
    (Link(1, "lo", 65536, up=True, loopback=True), Link(2, "eth0", 1500, up=True)),
    (OwnAddress(IPv4Address(OWN), 16, 2),),
    (2,),
)


class Vm(Struct, frozen=True):
    """What a pass knows of a VM on which everything is as its config wants it."""

    config: Config
    placement: Placement
    desired: Desired
    observed: Observed


def config(subnets: int) -> Config:
    """A config with so many subnets, half of them exempt; the first one holds every peer."""
    ipsec = ["10.0.0.0/16", *(f"10.{1 + n // 250}.{n % 250}.0/24" for n in range(subnets // 2 - 1))]
    exempt = [f"10.{101 + n // 250}.{n % 250}.7/32" for n in range(subnets - subnets // 2)]
    facts = CertificateFacts(
        *("CN=vm", "CN=ca", "instance", "01"),
        not_before=datetime(2026, 1, 1, tzinfo=UTC),
        not_after=datetime(2099, 1, 1, tzinfo=UTC),
    )
    return Config(
        tuple(Subnet(text, ip_network(text)) for text in ipsec),
        tuple(Subnet(text, ip_network(text)) for text in exempt),
        certificate=bytes(1000),
        credentials=Credentials("aa", Secret(bytes(1000)), (Authority("ca", bytes(1000)),)),
        certificates=(facts,),
    )


def vm(peers: int, subnets: int, *, clear: int = 0) -> Vm:
    """A VM with an SA with each peer.

    Args:
        peers: VMs of the deployment that it speaks with.
        subnets: of the config.
        clear: peers that send clear, and to whom something would send it.
    """
    settings = config(subnets)
    placement = place(settings.agent, Promise.of(settings), NETWORK)
    guard = desired_guard(settings, placement)
    assert guard is not None
    wish = replace(desired(settings, placement), guard=guard)
    senders = tuple(ClearPeer(_peer(n), 1 + n, 100, 0) for n in range(clear))
    return Vm(
        settings,
        placement,
        wish,
        replace(
            _observed(wish, peers),
            guard=GuardTable("form", guard.mark, clear_in=senders, clear_out=senders),
            saved_guard=guard.mark,
        ),
    )


def _observed(wish: Desired, peers: int) -> Observed:
    """No record of it is one of the wish: a pass decodes each reading anew."""
    assert wish.credentials is not None
    sas = tuple(map(_ike_sa, range(peers)))
    return Observed(
        Charon(
            CharonProcess(4711, BEGAN, 1 << 24, ours=True),
            "5.9.8",
            connections=tuple(
                LoadedConnection(
                    one.name, fingerprint(one), tuple(child.name for child in one.children)
                )
                for one in wish.connections
            ),
            authorities=tuple(ca.name for ca in wish.credentials.authorities),
            keys=(wish.credentials.key_id,),
            credentials=credentials_mark(wish.credentials),
            sas=sas,
        ),
        (*map(_installed, wish.policies), *(one for n in range(peers) for one in _transport(n))),
        tuple(one for sa in sas for one in _states(sa)),
        NETWORK,
        remembered=tuple(RememberedPeer(_peer(n), NOW - 60, poked=True) for n in range(peers)),
        time=NOW,
    )


def _peer(number: int) -> IPv4Address:
    return IPv4Address(FIRST_PEER + number)


def _host(address: IPv4Address) -> IPv4Network:
    return IPv4Network(int(address))


def _ike_sa(number: int) -> IkeSa:
    own, peer = IPv4Address(OWN), _peer(number)
    ends = (_host(own),), (_host(peer),)
    child = ChildSa(
        *(number, "ipsec-10.0.0.0/16-10.0.0.5", "INSTALLED", 2 * number + 1, 2 * number + 2, 77),
        *ends,
        *(9000, 8000, 90, 80, 500),
    )
    return IkeSa(number, "ipsec-10.0.0.0/16", "ESTABLISHED", own, peer, True, 500, (child,))


def _states(sa: IkeSa) -> tuple[SecurityAssociation, SecurityAssociation]:
    (child,) = sa.children
    times = int(BEGAN) + 500, int(BEGAN) + 500, int(NOW)
    return (
        SecurityAssociation(sa.local, sa.remote, child.spi_out, 77, 8000, 80, *times),
        SecurityAssociation(sa.remote, sa.local, child.spi_in, 77, 9000, 90, *times),
    )


def _transport(number: int) -> tuple[Policy, Policy]:
    own, peer = _host(IPv4Address(OWN)), _host(_peer(number))
    added = int(BEGAN) + 500
    return (
        Policy(PolicySelector(Direction.OUT, own, peer), 367231, True, False, False, 77, 9, added),
        Policy(PolicySelector(Direction.IN, peer, own), 367231, True, False, False, 77, 8, added),
    )


def _installed(wanted: DesiredPolicy) -> Policy:
    """A desired policy as the kernel shows it, decoded anew."""
    esp, selector = wanted.action is Action.ENCRYPT, wanted.selector
    source, destination = (
        ip_network(str(network)) for network in (selector.source, selector.destination)
    )
    bonus = 512 * (source.prefixlen + destination.prefixlen)
    return Policy(
        replace(selector, source=source, destination=destination),
        (400000 if esp else 199999) - bonus,
        esp=esp,
        blocks=False,
        added=int(BEGAN) + 1,
    )
