"""What a VM cannot do without, as a record; host/essential_addresses.py reads it."""

from msgspec import Struct

from ipsec_agent.core.model import Address


class EssentialAddresses(Struct, frozen=True):
    """Addresses that this VM cannot do without, as far as files and its environment tell.

    Attributes:
        directors: of BOSH: its message bus and blobstore.
        unresolved: names of those whose addresses are not known, so that nobody judges them.
        ssh_clients: where the operators of SSH sessions sit.
    """

    name_servers: tuple[Address, ...] = ()
    dhcp_servers: tuple[Address, ...] = ()
    directors: tuple[Address, ...] = ()
    ssh_clients: tuple[Address, ...] = ()
    unresolved: tuple[str, ...] = ()
