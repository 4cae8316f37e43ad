"""Which of the VM's addresses are its own in the deployment, and on which links they are.

The operator may say `agent.address`, `agent.interface` and `agent.uplinks`; what is left out is
found where it is unambiguous, and refused with the candidates where it is not.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from ipaddress import ip_interface

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import Link, NetworkFacts, OwnAddress
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import ConfigError


@dataclass(frozen=True, slots=True)
class Placement:
    """Where the VM stands.

    Attributes:
        address: the main address.
        addresses: every own address on the uplinks, the main one first.
        uplinks: the links that leave the VM; empty where the main address is on none.
        present: whether the main address is on a link now.
        broadcasts: the broadcast addresses of the networks that its addresses are in.
    """

    address: Address
    addresses: tuple[Address, ...]
    uplinks: tuple[Link, ...] = ()
    present: bool = True
    broadcasts: tuple[Address, ...] = ()


def place(agent: AgentConfig, promise: Promise, network: NetworkFacts) -> Placement:
    """Find the VM's addresses and uplinks.

    Raises:
        ConfigError: the interface does not exist, or the address cannot be found unambiguously.
    """
    usable = tuple(own for own in network.addresses if _counts(own.address))
    address = agent.address or _find(agent, promise, network, usable)
    uplinks = _uplinks(agent, address, network)
    indexes = {link.index for link in uplinks}
    others = tuple(
        dict.fromkeys(
            own.address for own in usable if own.link in indexes and own.address != address
        )
    )
    present = any(own.address == address for own in usable)
    mine = [own for own in usable if own.address in (address, *others)]
    return Placement(address, (address, *others), uplinks, present, _broadcasts(mine))


def steady(found: Placement, before: Placement | None, network: NetworkFacts) -> Placement:
    """The placement, unless it only looks so because an uplink has lost its address for a moment.

    Without a default route a container network's bridge may be the only link that bears an
    address. Where the links that were uplinks are still there, they stay it.
    """
    if before is None or network.default_links:
        return found
    was, now = ({link.index for link in one.uplinks} for one in (before, found))
    if not was or was & now or not was <= {link.index for link in network.links}:
        return found
    return replace(before, present=False)


def _broadcasts(mine: list[OwnAddress]) -> tuple[Address, ...]:
    networks = (
        ip_interface(f"{own.address}/{own.prefix}").network
        for own in mine
        # RFC 3021: a network of two addresses has none; IPv6 has none at all.
        if own.address.version == 4 and own.prefix < 31  # noqa: PLR2004
    )
    return tuple(dict.fromkeys(network.broadcast_address for network in networks))


def _counts(address: Address) -> bool:
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


def _find(
    agent: AgentConfig,
    promise: Promise,
    network: NetworkFacts,
    usable: tuple[OwnAddress, ...],
) -> Address:
    if agent.interface:
        link = next((link for link in network.links if link.name == agent.interface), None)
        if link is None:
            raise ConfigError(
                f"agent.interface: there is no link {agent.interface} on this VM",
                hint=f"its links are {_names(network.links)}",
            )
        here = [own for own in usable if own.link == link.index]
        where = f"on {agent.interface}"
    else:
        outward = [own for own in usable if own.link in network.default_links]
        here = outward or list(usable)
        where = "on the links of the default routes" if outward else "on this VM"
    named = [own for own in here if _listed(promise, own.address)] or here
    main = named[0].address if named else None
    # One link may bear several addresses; their order is the kernel's, the first is primary.
    if main is not None and len({own.link for own in named}) == 1:
        return next((own.address for own in named if own.address.version == main.version), main)
    if main is None:
        raise ConfigError(
            f"there is no address {where} that could be this VM's",
            hint="write agent.address: <this VM's address>, or start after the network is up",
        )
    raise ConfigError(
        "this VM has several addresses that could be its own in the deployment:"
        f" {', '.join(str(own.address) for own in named)}",
        hint=f"write agent.address: {main}, or whichever is right",
    )


def _uplinks(agent: AgentConfig, address: Address, network: NetworkFacts) -> tuple[Link, ...]:
    if agent.uplinks:
        # One that is missing may come later; it counts from the pass on that sees it.
        return tuple(link for link in network.links if link.name in agent.uplinks)
    wanted = {own.link for own in network.addresses if own.address == address}
    wanted |= set(network.default_links)
    return tuple(
        link for link in network.links if link.index in wanted or link.name == agent.interface
    )


def _listed(promise: Promise, address: Address) -> bool:
    return promise.encrypted(address) or promise.no_ipsec_subnet(address) is not None


def _names(links: Iterable[Link]) -> str:
    return ", ".join(link.name for link in links if link.name != "lo") or "none but lo"
