"""The guard: which packets one nftables table drops because they should be encrypted and are not.

It states the promise literally and names neither an address of this VM, nor its role, nor anything
of charon's, so that one and the same table stands on every VM of a deployment. guard_table.py
writes it down for nftables.
"""

from functools import cached_property
from ipaddress import ip_network

from msgspec import Struct

from ipsec_agent.core.model import Address, LinkId, Network
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.ranges import (
    BITS,
    Ranges,
    complement,
    holds,
    joined,
    networks_of,
    of_networks,
)

NEVER_A_PEER: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/32",
        "224.0.0.0/4",
        "255.255.255.255/32",
        "::/128",
        "fe80::/10",
        "ff00::/8",
    )
)
"""Addresses that no VM of a deployment has, even if 0.0.0.0/0 or ::/0 is to be encrypted: DHCP,
multicast and neighbour discovery need them."""


class Guard(Struct, frozen=True, dict=True):
    """What the table is made from.

    Attributes:
        force_encapsulation: ESP travels in UDP.
        enforce: drop, rather than only count.
    """

    promise: Promise
    force_encapsulation: bool = False
    enforce: bool = True

    def judges(self, source: Address, destination: Address) -> bool:
        """Whether the table drops a clear packet between these addresses, none link-local."""
        return source.version == destination.version and not any(
            holds(self.outside(source.version), (int(address), int(address)))
            for address in (source, destination)
        )

    def families(self) -> tuple[int, ...]:
        """The IP versions in which anything is encrypted."""
        return tuple(
            version
            for version, bits in BITS.items()
            if self.outside(version) != ((0, 2**bits - 1),)
        )

    def outside(self, version: int) -> Ranges:
        """The addresses that are not encrypted."""
        return self._outside[version]

    @cached_property
    def _outside(self) -> dict[int, Ranges]:
        exempt = (*self.promise.no_ipsec, *NEVER_A_PEER)
        return {
            version: joined(
                (
                    *of_networks(exempt, version),
                    *complement(of_networks(self.promise.ipsec, version), version),
                )
            )
            for version in BITS
        }

    def no_ipsec(self, version: int) -> tuple[Network, ...]:
        """The no-ipsec subnets of an IP version, none inside another."""
        return tuple(networks_of(of_networks(self.promise.no_ipsec, version), version))


def exempt_links(placement: Placement) -> tuple[LinkId, ...]:
    """The links that need no judging; none while it is unclear where this VM stands."""
    if not placement.present:
        return ()
    return tuple(sorted(one.key for one in placement.inside if one.exempt))


def overlay_ports(placement: Placement) -> tuple[int, ...]:
    """The UDP ports of tunnels that need no judging, as their outer packets are judged there."""
    if not placement.present:
        return ()
    tunnels = (one.link.tunnel for one in placement.inside if one.exempt)
    return tuple(sorted({it.port for it in tunnels if it is not None and it.port}))


def explain(guard: Guard) -> tuple[str, ...]:
    """What the table means, as sentences for an operator."""
    verb = "dropped" if guard.enforce else "counted, but let through (optional: true)"
    encrypted = ", ".join(str(network) for network in guard.promise.ipsec) or "nothing"
    clear = ", ".join(str(network) for network in guard.promise.no_ipsec)
    port = " and ESP in UDP (port 4500)" if guard.force_encapsulation else ""
    return (
        f"between two addresses of {encrypted}"
        + (f", except {clear}," if clear else "")
        + f" whatever is not IPsec is {verb}, in both directions",
        f"passes there: ESP{port}, IKE (UDP 500, and 4500 with the marker), neighbour discovery",
        "what goes through IPsec there does so in transport mode, through one SA, or is dropped",
        (
            "passes everywhere: loopback, multicast, DHCP's broadcasts, and link-local IPv6 but for"
            " what this VM sends from such an address to an encrypted one"
        ),
        (
            "judged is every link but those known to lead to this VM's own containers only; all of"
            " them while it is unclear where this VM stands"
        ),
    )
