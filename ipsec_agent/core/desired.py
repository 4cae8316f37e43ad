"""From the config and the VM's own network to what should be on it."""

import hashlib
from ipaddress import IPv4Network, IPv6Address, IPv6Network, ip_network

from ipsec_agent.core.config import Config, Outside
from ipsec_agent.core.model import (
    Action,
    Address,
    Child,
    Connection,
    Desired,
    DesiredPolicy,
    Direction,
    IkeSettings,
    Network,
    PolicySelector,
    Role,
    TrafficSelector,
)
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.ranges import BITS
from ipsec_agent.errors import ConfigError

DPD_DELAY = 5
"""Seconds of silence before a peer is asked whether it lives. With the retransmission settings of
strongswan_conf.py a dead peer is noticed within about 11 s, which stays below the patience of the
jobs on the VM."""

ANY_IPV4 = IPv4Network("0.0.0.0/0")
ANY_IPV6 = IPv6Network("::/0")
ICMPV6 = 58
NEIGHBOUR_DISCOVERY = (135, 136)
"""ICMPv6 types of neighbour solicitation and advertisement (RFC 4861), which a trap would catch."""

FIRST_REQID = 1 << 20
"""charon counts its own from 1."""

BROADCAST_NAME = "no-ipsec-broadcast"
NEIGHBOUR_DISCOVERY_NAME = "no-ipsec-neighbour-discovery"
SELF_NAME = "no-ipsec-self"


def desired(config: Config, placement: Placement, *, guarded: bool = True) -> Desired:
    """What should be on a VM that stands there.

    Args:
        guarded: the guard stands, or shall stand, behind the traps.

    Raises:
        ConfigError: the main address is in neither list and `agent.outside` does not allow it.
    """
    lists = Promise.of(config)
    refuse_outside(config, lists, placement)
    encrypting = tuple(own for own in placement.addresses if lists.encrypted(own))
    connections = (
        *_shunts(lists),
        *(_broadcast_shunt(lists, placement) if guarded and encrypting else ()),
        *_ipv6_shunts(encrypting),
        *_traps(config, lists, encrypting),
    )
    return Desired(
        role=Role.ENCRYPT if encrypting else Role.CLEAR,
        addresses=placement.addresses,
        connections=connections,
        policies=tuple(policy for connection in connections for policy in policies(connection)),
        credentials=config.credentials,
        notes=_notes(lists, placement),
        optional=config.optional,
    )


def policies(connection: Connection) -> tuple[DesiredPolicy, ...]:
    """The policies by which the kernel shows that a connection is enforced.

    A trap shows in both directions, a shunt also for forwarded packets; an ICMP type stands where
    a port would, and in the source whichever side the selector names (measured, charon 5.9.8).
    """
    directions = (
        (Direction.OUT, Direction.IN)
        if connection.action is Action.ENCRYPT
        else (Direction.OUT, Direction.IN, Direction.FWD)
    )
    return tuple(
        DesiredPolicy(
            _selector(child, direction), connection.action, connection.name, child.name, child.reqid
        )
        for child in connection.children
        for direction in directions
    )


def _selector(child: Child, direction: Direction) -> PolicySelector:
    near, far = child.local, child.remote
    source, destination = (near, far) if direction is Direction.OUT else (far, near)
    icmp_type = max(near.port, far.port)
    return PolicySelector(
        direction,
        source.network,
        destination.network,
        max(near.protocol, far.protocol),
        icmp_type,
        0,
    )


def refuse_outside(config: Config, lists: Promise, placement: Placement) -> None:
    """Refuse a config that says nothing of this VM.

    Raises:
        ConfigError: the main address is in neither list and `agent.outside` does not allow it.
    """
    address, waiting = placement.address, ", ".join(placement.waiting)
    listed = lists.ipsec_subnet(address) or lists.no_ipsec_subnet(address)
    if listed is None and config.agent.outside is Outside.ERROR:
        said = f"this VM's address {address} is in neither ipsec_subnets nor no_ipsec_subnets"
        if waiting:
            # Advice to speak clear would open a VM that DHCP is late for.
            raise ConfigError(
                f"{said}, or {waiting} has no address yet",
                hint=f"wait for the address of {waiting}, and see why it has none; where this VM"
                f" is to use {address}, add its subnet to one of the lists",
            )
        raise ConfigError(
            said,
            hint="add its subnet to one of them, or write agent.outside: clear if this VM must"
            " exchange clear packets with all VMs",
        )


def _shunts(lists: Promise) -> tuple[Connection, ...]:
    """PASS shunts. Their local side is any address, so that they outlive every change of ours."""
    return tuple(
        _shunt(name, network, (_child(_any(network), network, name),))
        for network in lists.no_ipsec
        for name in (f"no-ipsec-{network}",)
    )


def _broadcast_shunt(lists: Promise, placement: Placement) -> tuple[Connection, ...]:
    """A broadcast that falls into a trap would start IKE with an address that is nobody's.

    The guard drops what this lets through. Without a guard it would leave in clear, and so it stays
    in the trap.
    """
    caught = tuple(one for one in placement.broadcasts if lists.encrypted(one))
    if not caught:
        return ()
    children = tuple(_child(ANY_IPV4, _host(one), name=f"{BROADCAST_NAME}-{one}") for one in caught)
    return (_shunt(BROADCAST_NAME, _host(caught[0]), children),)


def _ipv6_shunts(encrypting: tuple[Address, ...]) -> tuple[Connection, ...]:
    """What a trap for IPv6 would break: neighbour discovery, and the VM's traffic to itself."""
    own = tuple(address for address in encrypting if isinstance(address, IPv6Address))
    if not own:
        return ()
    discovery = tuple(
        Child(
            name=f"{NEIGHBOUR_DISCOVERY_NAME}-{icmp_type}",
            action=Action.PASS,
            local=TrafficSelector(ANY_IPV6, ICMPV6, icmp_type),
            remote=TrafficSelector(ANY_IPV6, ICMPV6, icmp_type),
        )
        for icmp_type in NEIGHBOUR_DISCOVERY
    )
    to_itself = tuple(
        _child(_host(one), _host(other), name=f"{SELF_NAME}-{one}-{other}")
        for one in own
        for other in own
    )
    return (
        _shunt(NEIGHBOUR_DISCOVERY_NAME, ANY_IPV6, discovery),
        _shunt(SELF_NAME, _host(own[0]), to_itself),
    )


def _traps(
    config: Config, lists: Promise, encrypting: tuple[Address, ...]
) -> tuple[Connection, ...]:
    settings = IkeSettings(
        ike_proposals=config.ike_proposals,
        esp_proposals=config.esp_proposals,
        force_encapsulation=config.force_udp_encapsulation,
        dpd_delay=DPD_DELAY,
        certificate=config.certificate,
        authorities=tuple(ca.certificate for ca in config.credentials.authorities),
        subject=config.certificates[0].subject,
        expires=config.certificates[0].not_after.timestamp(),
    )
    found = []
    covered = frozenset(lists.covered)
    hosts = {
        version: tuple((_host(own), str(own)) for own in encrypting if own.version == version)
        for version in BITS
    }
    for network in lists.ipsec:
        own = hosts[network.version]
        if not own or network in covered:
            continue
        written = str(network)
        name, remote = f"ipsec-{written}", TrafficSelector(network)
        children = tuple(
            Child(
                # charon compares children without their names (child_cfg.c: equals): a name that
                # passed from one address to another would take the trap of either with it.
                name=f"{name}-{address}",
                action=Action.ENCRYPT,
                local=TrafficSelector(host),
                remote=remote,
                reqid=_reqid(address, written),
            )
            for host, address in own
        )
        found.append(Connection(name, Action.ENCRYPT, network, children, settings))
    return tuple(found)


def _reqid(own: str, network: str) -> int:
    """The number that ties a trap and the SAs with each of its peers together, whoever began them.

    Left to charon, an SA that the peer began has another number than one that the trap asked for.
    Where both began at once the policy bears one of them, and the kernel drops what arrives on the
    other (measured with 5.9.8: no traffic for up to 18 s); after a flush of the policies it drops
    all that arrives on an SA that the peer began. Peers are told apart by their addresses.
    """
    digest = hashlib.sha256(f"{own} {network}".encode()).digest()
    return FIRST_REQID + int.from_bytes(digest[:4], "big") % (2**32 - FIRST_REQID)


def _shunt(name: str, remote: Network, children: tuple[Child, ...]) -> Connection:
    return Connection(name, Action.PASS, remote, children)


def _child(local: Network, remote: Network, name: str) -> Child:
    return Child(
        name=name,
        action=Action.PASS,
        local=TrafficSelector(local),
        remote=TrafficSelector(remote),
    )


def _any(network: Network) -> Network:
    return ANY_IPV4 if network.version == ANY_IPV4.version else ANY_IPV6


def _host(address: Address) -> Network:
    return ip_network(address)


def _notes(lists: Promise, placement: Placement) -> tuple[str, ...]:
    notes = []
    for address in placement.addresses:
        exempt = lists.no_ipsec_subnet(address)
        if exempt is not None:
            notes.append(
                f"{address} is in no_ipsec_subnets ({exempt}): it speaks clear with every VM"
            )
        elif lists.ipsec_subnet(address) is None:
            notes.append(f"{address} is in neither list: it speaks clear with every VM")
    notes.extend(
        f"no address of {network} is encrypted: no_ipsec_subnets cover it"
        for network in lists.covered
    )
    families = {address.version for address in placement.addresses if lists.encrypted(address)}
    notes.extend(
        f"{network} is not enforced here: this VM has no encrypting IPv{network.version} address"
        for network in lists.ipsec
        if families and network.version not in families
    )
    return tuple(notes)
