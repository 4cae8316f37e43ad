"""What is known of peers beside their SAs: those that once had one, and who answers on the link."""

from msgspec import Struct

from ipsec_agent.core.model import Address


class RememberedPeer(Struct, frozen=True):
    """A peer that had an SA with this VM, as the file of peers tells.

    Attributes:
        seen: when it last had one, seconds since the epoch, to the day.
        poked: it has been sent a packet since charon started.
        poked_at: when that was, seconds since the epoch.
    """

    address: Address
    seen: float
    poked: bool = False
    poked_at: float = 0.0


class Neighbour(Struct, frozen=True):
    """What neighbour discovery (ARP) knows of a peer on a link of this VM.

    Attributes:
        answered: when it last proved to be there, seconds since the epoch, 0 for not known.
        failed: it does not answer now.
    """

    address: Address
    answered: float = 0.0
    failed: bool = False
