"""Which addresses are this VM's own in the deployment, and which of its links are guarded.

Addresses decide, never routes: every own address has its place, whichever link bears it, so that a
route that comes, goes or moves changes nothing. Own is what is on no link that leads to this VM's
own containers only (inside.py). What the operator says in `agent:` comes first.
"""

from collections.abc import Container, Iterable, Iterator
from ipaddress import ip_interface

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.inside import (
    BRIDGE,
    STACKED,
    VETH,
    Inside,
    Words,
    find_inside,
    is_called,
    is_usable,
)
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import Link, NetworkFacts, OwnAddress
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import ConfigError

WITH_ADDRESS = frozenset({"", "bond", BRIDGE, "ipvlan", "macvlan", "team", VETH, "vlan"})
"""Kinds of links that get the VM's address; the others are tunnels, and made by programs."""


class Placement(Struct, frozen=True):
    """This VM's addresses and links.

    Attributes:
        address: the main address.
        addresses: every own address, the main one first.
        uplinks: the guarded links that the VM's packets are known to leave by: those of its listed
            addresses, of the default routes, and those that the operator names.
        present: whether the main address is on a link now.
        broadcasts: the broadcast addresses of the networks that its addresses are in.
        guarded: the links that the guard covers, without lo.
        inside: the others, each with the reason.
        waiting: names of guarded links that may get an address of the VM's, and have none yet.
    """

    address: Address
    addresses: tuple[Address, ...]
    uplinks: tuple[Link, ...] = ()
    present: bool = True
    broadcasts: tuple[Address, ...] = ()
    guarded: tuple[Link, ...] = ()
    inside: tuple[Inside, ...] = ()
    waiting: tuple[str, ...] = ()


def place(
    agent: AgentConfig, promise: Promise, network: NetworkFacts, before: Placement | None = None
) -> Placement:
    """Find the VM's addresses, and the links to guard.

    Args:
        before: where it was found last, to name what is gone.

    Raises:
        ConfigError: the interface does not exist, or no address can be the VM's.
    """
    inside = find_inside(network, promise, Words(agent.uplinks, agent.inside))
    within = {one.link.index for one in inside}
    own = tuple(
        one for one in network.addresses if is_usable(one.address) and one.link not in within
    )
    address = agent.address or _main(agent, promise, network, own, before)
    others = tuple(
        dict.fromkeys(
            one.address for one in _in_order(promise, network, own) if one.address != address
        )
    )
    guarded = tuple(
        link for link in network.links if link.index not in within and not link.loopback
    )
    used = {one.link for one in own if one.address == address or promise.listed(one.address)}
    used |= set(network.default_links)
    named = {agent.interface, *agent.uplinks}
    return Placement(
        address=address,
        addresses=(address, *others),
        uplinks=tuple(link for link in guarded if link.index in used or is_called(link, named)),
        present=any(one.address == address for one in own),
        broadcasts=_broadcasts(own),
        guarded=guarded,
        inside=inside,
        waiting=() if agent.address or agent.interface else _waiting(network, guarded, own),
    )


def _waiting(
    network: NetworkFacts, guarded: Iterable[Link], own: Iterable[OwnAddress]
) -> tuple[str, ...]:
    """Links without an address; a port of another link, and what another is on, needs none."""
    needless = {one.link for one in own} | {
        link.lower for link in network.links if link.kind in STACKED
    }
    return tuple(
        link.name
        for link in guarded
        if link.kind in WITH_ADDRESS and not link.master and link.index not in needless
    )


def absent_links(agent: AgentConfig, there: Container[str]) -> Iterator[str]:
    """What to say of each link that the config names and this VM does not have.

    Args:
        there: the names of its links.
    """
    for key, names in (("uplinks", agent.uplinks), ("inside", agent.inside)):
        for name in names:
            if name not in there:
                yield f"agent.{key} names {name}, and this VM has no such link"


def steady(
    found: Placement, before: Placement | None, promise: Promise, network: NetworkFacts
) -> Placement:
    """The placement, unless it only looks so because a link has lost its address for a moment.

    Where no own address is listed any more, but the links that bore one are still there, what was
    encrypted stays so.
    """
    if before is None or any(map(promise.listed, found.addresses)):
        return found
    was = {link.index for link in before.uplinks}
    encrypted = any(map(promise.encrypted, before.addresses))
    if not encrypted or not was or not was <= {link.index for link in network.links}:
        return found
    return replace(
        before, present=False, uplinks=found.uplinks, guarded=found.guarded, inside=found.inside
    )


def _broadcasts(own: Iterable[OwnAddress]) -> tuple[Address, ...]:
    networks = (
        ip_interface(f"{one.address}/{one.prefix}").network
        for one in own
        # RFC 3021: a network of two addresses has none; IPv6 has none at all.
        if one.address.version == 4 and one.prefix < 31  # noqa: PLR2004
    )
    return tuple(dict.fromkeys(network.broadcast_address for network in networks))


def _main(
    agent: AgentConfig,
    promise: Promise,
    network: NetworkFacts,
    own: tuple[OwnAddress, ...],
    before: Placement | None,
) -> Address:
    here, where = own, "on this VM"
    if agent.interface:
        link = next((one for one in network.links if is_called(one, (agent.interface,))), None)
        if link is None:
            raise ConfigError(
                f"agent.interface: this VM has no link {agent.interface}",
                hint=f"its links are {_names(network.links)}",
            )
        here = tuple(one for one in own if one.link == link.index)
        where = f"on {agent.interface}"
    found = _in_order(promise, network, here)
    if not found and before is not None:
        raise ConfigError(
            f"this VM's address {before.address} is gone, and no other address {where} can be its"
            " own",
            hint="bring the link up, or add the address to it: see `ip -br address`",
        )
    if not found:
        raise ConfigError(
            f"no address {where} can be this VM's",
            hint="write agent.address: <this VM's address>, or start after the network is up",
        )
    return found[0].address


def _in_order(
    promise: Promise, network: NetworkFacts, own: tuple[OwnAddress, ...]
) -> list[OwnAddress]:
    """The own addresses as they may be the main one: encrypted, in a list, any other.

    Among those in no list, where the role is the same for all, that of a default route is shown
    first; a route decides nothing else. lo comes last, as its addresses are often somebody's who
    moves. The order of one link is the kernel's, which has the primary address first.
    """
    loopback = {link.index for link in network.links if link.loopback}

    def rank(one: OwnAddress) -> tuple[object, ...]:
        listed = promise.listed(one.address)
        return (
            not promise.encrypted(one.address),
            not listed,
            not listed and one.link not in network.default_links,
            one.link in loopback,
            one.address.version,
            one.link,
        )

    return sorted(own, key=rank)


def _names(links: Iterable[Link]) -> str:
    return ", ".join(link.name for link in links if not link.loopback) or "none but lo"
