"""The guard's table as one pass has read it."""

from typing import TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.model import Address, LinkId


class ClearPeer(Struct, frozen=True):
    """An address that the guard counts.

    Attributes:
        idle: seconds since the last packet.
    """

    address: Address
    packets: int
    bytes: int
    idle: int


class ClearLink(Struct, frozen=True):
    """A link that the guard does not cover, with what it saw go by there.

    Attributes:
        link: its name, or its index as text where it is gone.
        idle: seconds since the last packet.
    """

    link: str
    packets: int
    bytes: int
    idle: int


Counted = TypeVar("Counted", ClearPeer, ClearLink)


class GuardTable(Struct, frozen=True):
    """The guard's table as the kernel lists it.

    Attributes:
        form: digest of its rules and fixed sets; see host/nft_image.py.
        mark: of the text that is known to make this form, "" where none is: it was altered.
        exempt: the links that it does not cover, sorted.
        overlay_ports: UDP ports on which it lets nothing through but IPsec, sorted.
        dropped_in: packets dropped (counted only, where it does not enforce) on the way in.
        dropped_out: likewise, on the way out.
        tunnelled_in: those of dropped_in that came through an SA not in transport mode.
        tunnelled_out: likewise, of dropped_out.
        disguised_in: those of dropped_in with an IPv4-mapped address, a source route, a routing
            header, or headers cut off by fragmentation.
        disguised_out: likewise, of dropped_out.
        clear_in: peers that sent us clear.
        clear_out: peers to whom something here would have sent clear.
        misplaced: sources in no list, from which something here would have sent clear although they
            are no address of the link that the packets were to leave by.
        untranslated: senders outside every list whose packets left to encrypted addresses; this
            VM's own addresses are among them where it speaks clear by its role.
        tunnelled: peers of SAs that carried, or would have carried, packets between encrypted
            addresses otherwise than in transport mode.
        unguarded: traffic between encrypted addresses on exempt links.
        flowtables: those of anybody, as `nft delete flowtable` names them; they forward connections
            past every rule.
        flow_rules: mark of the text that has made the table beside them (flow_rules.py), "" where
            none is known to: it was altered; None where there is none.
        offloaded: packets that it dropped.
        reading: number of the reading: one with the same number tells nothing further.
        closed: it has a chain of a closed table's name (closed_table.py); its mark tells whether it
            is one.
    """

    form: str
    mark: str = ""
    exempt: tuple[LinkId, ...] = ()
    overlay_ports: tuple[int, ...] = ()
    dropped_in: int = 0
    dropped_out: int = 0
    tunnelled_in: int = 0
    tunnelled_out: int = 0
    disguised_in: int = 0
    disguised_out: int = 0
    clear_in: tuple[ClearPeer, ...] = ()
    clear_out: tuple[ClearPeer, ...] = ()
    misplaced: tuple[ClearPeer, ...] = ()
    untranslated: tuple[ClearPeer, ...] = ()
    tunnelled: tuple[ClearPeer, ...] = ()
    unguarded: tuple[ClearLink, ...] = ()
    flowtables: tuple[str, ...] = ()
    flow_rules: str | None = None
    offloaded: int = 0
    reading: int = 0
    closed: bool = False

    def aged(self, seconds: int) -> "GuardTable":
        """The same, some seconds after it was listed without another packet."""
        if not seconds:
            return self
        return replace(
            self,
            clear_in=_aged(self.clear_in, seconds),
            clear_out=_aged(self.clear_out, seconds),
            misplaced=_aged(self.misplaced, seconds),
            untranslated=_aged(self.untranslated, seconds),
            tunnelled=_aged(self.tunnelled, seconds),
            unguarded=_aged(self.unguarded, seconds),
        )


def _aged(counted: tuple[Counted, ...], seconds: int) -> tuple[Counted, ...]:
    return tuple(replace(one, idle=one.idle + seconds) for one in counted)
