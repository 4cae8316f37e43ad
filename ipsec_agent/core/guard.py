"""The guard: which packets one nftables table drops because they should be encrypted and are not.

It states the promise literally and names neither an address of this VM, nor its role, nor anything
of charon's, so that every VM of a deployment has the same table. guard_table.py
writes it for nftables.
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


NOT_UTF_8 = "\N{REPLACEMENT CHARACTER}"


def exempt_links(placement: Placement) -> tuple[LinkId, ...]:
    """The links that need no guard; none while this VM's address is not known.

    One whose name is not UTF-8 is guarded: what is known of the name is not what the kernel has.
    """
    if not placement.present:
        return ()
    keys = (one.key for one in placement.inside if one.exempt)
    return tuple(sorted(key for key in keys if NOT_UTF_8 not in key.name))


def overlay_ports(placement: Placement) -> tuple[int, ...]:
    """The UDP ports of tunnels that need no guard, since their outer packets are guarded."""
    if not placement.present:
        return ()
    tunnels = (one.link.tunnel for one in placement.inside if one.exempt)
    return tuple(sorted({it.port for it in tunnels if it is not None and it.port}))


def explain(guard: Guard) -> tuple[str, ...]:
    """What the table means, as sentences for an operator."""
    verb = "drops" if guard.enforce else "counts, but does not drop (optional: true),"
    encrypted = ", ".join(str(network) for network in guard.promise.ipsec) or "nothing"
    clear = ", ".join(str(network) for network in guard.promise.no_ipsec)
    port = " and ESP in UDP (port 4500)" if guard.force_encapsulation else ""
    return (
        f"{verb} everything but IPsec between addresses of {encrypted}"
        + (f", except {clear}," if clear else "")
        + " in both directions",
        f"allows there: ESP{port}, IKE (UDP 500, and 4500 with the marker), neighbour discovery",
        "drops IPsec there that is not in transport mode through one SA",
        (
            "allows everywhere: loopback, multicast, DHCP broadcasts, and link-local IPv6 except"
            " from this VM to an encrypted address"
        ),
        (
            "covers every link except those that lead only to this VM's own containers; every"
            " link while this VM's address is not known"
        ),
    )
