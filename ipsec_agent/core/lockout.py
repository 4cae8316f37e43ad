"""Which addresses this VM would cut itself off from, and the line of config that prevents it.

Some are a warning: they may run ipsec-agent, too, or lose little. Some are a refusal: without them
nobody can correct the config.
"""

from collections.abc import Iterable, Iterator
from ipaddress import ip_address

from msgspec import Struct

from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.guard import Guard
from ipsec_agent.core.model import Address

METADATA = (ip_address("169.254.169.254"), ip_address("fd00:ec2::254"))
"""Where AWS, GCP, Azure, OpenStack and others serve a VM's metadata; the last is AWS's for IPv6."""


class Role(Struct, frozen=True):
    """What an address is to this VM, and what is lost with it.

    Attributes:
        refused: without it the VM cannot be reached or repaired.
    """

    name: str
    loss: str
    refused: bool = False


GATEWAY = Role(
    "default gateway",
    "packets to it, its ICMP errors and path MTU discovery through it are lost",
)
NAME_SERVER = Role("DNS server", "lookups fail unless it runs ipsec-agent, too")
DHCP_SERVER = Role("DHCP server", "leases are renewed only by broadcast, shortly before they end")
DIRECTOR = Role(
    "BOSH director", "BOSH cannot reach this VM, nor deploy another config", refused=True
)
METADATA_SERVICE = Role("IaaS metadata service", "the next boot finds no settings", refused=True)
SSH_CLIENT = Role("client of an SSH session", "the session would end here", refused=True)


class Finding(Struct, frozen=True):
    """An address inside the encrypted set that may not be able to encrypt.

    Attributes:
        refused: the config is not to be enforced unless the operator insists.
        line: the line to add below `no_ipsec_subnets:`.
    """

    address: Address
    roles: tuple[str, ...]
    refused: bool
    message: str
    line: str

    @property
    def hint(self) -> str:
        """What to do about it."""
        return f"add the line `{self.line}` below no_ipsec_subnets"


def lockout(
    guard: Guard,
    own: tuple[Address, ...],
    gateways: tuple[Address, ...],
    essential: EssentialAddresses,
) -> tuple[Finding, ...]:
    """What this VM would lose, refusals first; nothing where nothing is enforced.

    Args:
        guard: what is enforced.
        own: this VM's addresses.
        gateways: its default gateways.
        essential: what else it needs.
    """
    if not guard.enforce:
        return ()
    roles: dict[Address, list[Role]] = {}
    for role, addresses in _needed(gateways, essential):
        for address in addresses:
            roles.setdefault(address, []).append(role)
    findings = (
        _finding(address, list(dict.fromkeys(found)))
        for address, found in roles.items()
        # To one's own address packets run over lo.
        if address not in own and any(guard.judges(mine, address) for mine in own)
    )
    return tuple(sorted(findings, key=lambda finding: not finding.refused))


def _needed(
    gateways: tuple[Address, ...], essential: EssentialAddresses
) -> Iterator[tuple[Role, Iterable[Address]]]:
    yield SSH_CLIENT, essential.ssh_clients
    yield DIRECTOR, essential.directors
    yield METADATA_SERVICE, METADATA
    yield GATEWAY, gateways
    yield NAME_SERVER, essential.name_servers
    yield DHCP_SERVER, essential.dhcp_servers


def _finding(address: Address, roles: list[Role]) -> Finding:
    names = tuple(role.name for role in roles)
    return Finding(
        address=address,
        roles=names,
        refused=any(role.refused for role in roles),
        message=(
            f"{address} ({', '.join(names)}) is inside the encrypted set:"
            f" {'; '.join(role.loss for role in roles)}"
        ),
        line=f"- {address}/{address.max_prefixlen}",
    )


def unknown_lockout(name: str) -> str:
    """What to say of a host of BOSH's whose addresses are not known."""
    return (
        f"{name} (BOSH director or blobstore) has no address that this VM can resolve: whether the"
        " config cuts it off is not known"
    )


def unknown_lockout_hint(name: str) -> str:
    """What to do about it."""
    return f"try `getent ahosts {name}`; if it is inside ipsec_subnets, list it in no_ipsec_subnets"
