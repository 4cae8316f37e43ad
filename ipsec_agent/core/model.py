"""The nouns that the config, charon and the kernel share, as frozen records.

`Desired` is what should be. What one pass has read is in observed.py, what act.py performs is in
steps.py.
Addresses and networks are those of the standard library.
"""

import enum
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

from msgspec import Struct

from ipsec_agent.core.terse import Terse

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network
Pair = tuple[Address, Address]
"""An address of this VM's, and a peer."""

GUARD_TABLE = "ipsec_agent"
"""The guard's nftables table, of the family inet."""


def address_order(address: Address) -> tuple[int, int]:
    """What addresses of both versions are sorted by; they have no order of their own."""
    return address.version, int(address)


class Role(enum.StrEnum):
    """How this VM speaks with the VMs of the deployment."""

    ENCRYPT = "encrypt"
    CLEAR = "clear"


class Action(enum.StrEnum):
    """What a connection does with the packets it selects."""

    ENCRYPT = "encrypt"
    PASS = "pass"  # noqa: S105 - charon's word for a shunt that lets through

    @property
    def shown(self) -> str:
        """The operator's word: `encrypt` or `clear`."""
        return "clear" if self is Action.PASS else self.value


class Direction(enum.IntEnum):
    """Direction of an XFRM policy (linux/xfrm.h: XFRM_POLICY_IN, _OUT, _FWD)."""

    IN = 0
    OUT = 1
    FWD = 2


class Secret(bytes):
    """Bytes that no log, repr or error shows."""

    __slots__ = ()

    def __repr__(self) -> str:
        return "Secret(...)"

    __str__ = __repr__


# --- what should be ---------------------------------------------------------------------------


class TrafficSelector(Struct, frozen=True):
    """One side of a child's selector, in charon's terms.

    Attributes:
        network: the addresses.
        protocol: IP protocol number, 0 for any (58 is ICMPv6).
        port: port, or ICMP type, 0 for any.
    """

    network: Network
    protocol: int = 0
    port: int = 0


class Child(Struct, frozen=True):
    """One child of a connection: a trap (ENCRYPT) or a shunt (PASS).

    Attributes:
        reqid: ties its policies to its SAs in the kernel, 0 where charon may choose.
        level: which of the peer's children is to answer (handover.py), 0 for the ordinary one.
    """

    name: str
    action: Action
    local: TrafficSelector
    remote: TrafficSelector
    reqid: int = 0
    level: int = 0


class IkeSettings(Terse, frozen=True, dict=True):
    """What all connections of one config share.

    Attributes:
        ike_proposals: as VICI takes them, without `!`; empty for charon's defaults.
        esp_proposals: likewise.
        force_encapsulation: always ESP in UDP.
        dpd_delay: seconds of silence before a peer is asked whether it lives.
        certificate: DER of this VM's certificate.
        authorities: DER of each CA certificate that may sign a peer's.
        subject: of this VM's certificate.
        expires: when that ends, seconds since the epoch.
    """

    unshown = ("certificate", "authorities")

    ike_proposals: tuple[str, ...]
    esp_proposals: tuple[str, ...]
    force_encapsulation: bool
    dpd_delay: int
    certificate: bytes
    authorities: tuple[bytes, ...]
    subject: str = ""
    expires: float = 0.0


class CredentialSet(Struct, frozen=True):
    """A certificate of this VM, and the CAs that are trusted with it (core/credential_set.py).

    Attributes:
        mark: tells sets apart, "" for one that is not known.
        certificate: SHA-256 of it, hex.
        expires: when the certificate ends, seconds since the epoch.
        authorities: SHA-256 of each CA, hex, sorted.
        since: when charon got it, seconds since the epoch.
    """

    mark: str
    certificate: str = ""
    subject: str = ""
    expires: float = 0.0
    authorities: tuple[str, ...] = ()
    since: float = 0.0


class Attempt(Struct, frozen=True):
    """Negotiations that the agent has begun by a connection with one peer.

    Attributes:
        count: how many; 0 where an operator asks for one.
        at: when the last began, seconds since the epoch.
    """

    count: int = 0
    at: float = 0.0


class Connection(Terse, frozen=True):
    """A connection of charon's, named `ipsec-<cidr>` or `no-ipsec-<cidr>` as operators know it.

    Attributes:
        remote: the subnet of the peers, normalised (no host bits).
        settings: None for shunts, which negotiate nothing.
    """

    unshown = ("settings",)

    name: str
    action: Action
    remote: Network
    children: tuple[Child, ...]
    settings: IkeSettings | None = None


class Authority(Terse, frozen=True):
    """A CA certificate to trust; `name` is made from the certificate, and so identifies it."""

    unshown = ("certificate",)

    name: str
    certificate: bytes


class Credentials(Terse, frozen=True):
    """What charon needs to prove who this VM is and to judge its peers.

    Attributes:
        key_id: hex SHA-1 of the public key, as VICI's get-keys lists it.
        private_key: PKCS#8 DER.
        authorities: the CAs.
        intermediates: DER of certificates to send along with ours.
    """

    unshown = ("intermediates",)

    key_id: str
    private_key: Secret
    authorities: tuple[Authority, ...]
    intermediates: tuple[bytes, ...] = ()


class PolicySelector(Struct, frozen=True):
    """What identifies a policy in the kernel, besides mark and if_id, which are not used here.

    Attributes:
        source_port: port or ICMP type, 0 for any.
        destination_port: port or ICMP code, 0 for any.
    """

    direction: Direction
    source: Network
    destination: Network
    protocol: int = 0
    source_port: int = 0
    destination_port: int = 0


class Narrowing(Struct, frozen=True):
    """What packets must have besides the selector of a policy; 0 each for anything.

    Attributes:
        interface: `if_id`.
        link: index of the link that it is bound to.
    """

    mark: int = 0
    mask: int = 0
    interface: int = 0
    link: int = 0

    def __str__(self) -> str:
        asked = (
            f"mark {self.mark:#x}/{self.mask:#x}" if self.mask else "",
            f"if_id {self.interface}" if self.interface else "",
            f"link {self.link}" if self.link else "",
        )
        return ", ".join(filter(None, asked))


class DesiredPolicy(Struct, frozen=True):
    """A policy that the kernel must show before a connection, and a child of it, are enforced.

    Attributes:
        reqid: of its template, 0 where charon chooses.
    """

    selector: PolicySelector
    action: Action
    connection: str
    child: str
    reqid: int = 0


class LinkId(Struct, frozen=True, order=True):
    """A link as the guard knows it: by index and name, so that one that has either is another."""

    index: int
    name: str

    def __str__(self) -> str:
        return self.name


class DesiredGuard(Terse, frozen=True):
    """The guard's table as it should be.

    Attributes:
        text: for `nft -f`; guard_table.py makes it.
        mark: digest of the text.
        exempt: the links that the guard does not cover, sorted.
        flow_rules: the table for as long as there is a flowtable; flow_rules.py makes it.
        overlay_ports: UDP ports of the tunnels among the exempt links, sorted.
        enforces: it drops what is clear, rather than only count it.
    """

    unshown = ("text", "flow_rules")

    text: str
    mark: str
    exempt: tuple[LinkId, ...] = ()
    flow_rules: str = ""
    overlay_ports: tuple[int, ...] = ()
    enforces: bool = True


class Desired(Struct, frozen=True, dict=True):
    """Everything that should be; nothing wanted is `Desired()` and takes everything away.

    Attributes:
        role: how this VM speaks with the VMs of the deployment.
        addresses: the VM's own addresses, the main one first.
        placed: this VM's addresses are known. While it is not, only the guard is wanted, and
            nothing is removed.
        guard: None where no guard is wanted.
        guard_lowered: the operator has taken it down for now; the next boot loads it again.
        mtus: links that need another MTU, as (index, bytes); empty unless `agent.mtu` is fix.
        notes: what an operator should know of how the config was read.
        optional: traps let pass in clear what there is no SA for.
    """

    role: Role = Role.CLEAR
    addresses: tuple[Address, ...] = ()
    connections: tuple[Connection, ...] = ()
    policies: tuple[DesiredPolicy, ...] = ()
    credentials: Credentials | None = None
    placed: bool = True
    guard: DesiredGuard | None = None
    guard_lowered: bool = False
    mtus: tuple[tuple[int, int], ...] = ()
    notes: tuple[str, ...] = ()
    optional: bool = False
