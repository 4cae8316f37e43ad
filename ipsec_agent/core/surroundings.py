"""What a VM cannot do without, as a record; host/surroundings.py reads it."""

from dataclasses import dataclass

from ipsec_agent.core.model import Address


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Addresses that this VM cannot do without, as far as files and its environment tell.

    Attributes:
        directors: of BOSH: its message bus and blobstore.
        ssh_clients: where the operator of this session sits.
    """

    name_servers: tuple[Address, ...] = ()
    dhcp_servers: tuple[Address, ...] = ()
    directors: tuple[Address, ...] = ()
    ssh_clients: tuple[Address, ...] = ()
