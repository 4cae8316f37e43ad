"""The nouns that the config, charon and the kernel share, as frozen records.

`Desired` is what should be, `Observed` what one pass has read, a `Step` what act.py performs.
Addresses and networks are those of the standard library; times are seconds since the epoch.
"""

import enum
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network


class Role(enum.StrEnum):
    """How this VM speaks with the VMs of the deployment."""

    ENCRYPT = "encrypt"
    CLEAR = "clear"


class Action(enum.StrEnum):
    """What a connection does with the packets it selects."""

    ENCRYPT = "encrypt"
    PASS = "pass"  # noqa: S105 - charon's word for a shunt that lets through


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


@dataclass(frozen=True, slots=True)
class TrafficSelector:
    """One side of a child's selector, in charon's terms.

    Attributes:
        network: the addresses.
        protocol: IP protocol number, 0 for any (58 is ICMPv6).
        port: port, or ICMP type, 0 for any.
    """

    network: Network
    protocol: int = 0
    port: int = 0


@dataclass(frozen=True, slots=True)
class Child:
    """One child of a connection: a trap (ENCRYPT) or a shunt (PASS)."""

    name: str
    action: Action
    local: TrafficSelector
    remote: TrafficSelector


@dataclass(frozen=True, slots=True)
class IkeSettings:
    """What all connections of one config share.

    Attributes:
        ike_proposals: as VICI takes them, without `!`; empty for charon's defaults.
        esp_proposals: likewise.
        force_encapsulation: always ESP in UDP.
        dpd_delay: seconds of silence before a peer is asked whether it lives.
        certificate: DER of this VM's certificate.
        authorities: DER of each CA certificate that may sign a peer's.
    """

    ike_proposals: tuple[str, ...]
    esp_proposals: tuple[str, ...]
    force_encapsulation: bool
    dpd_delay: int
    certificate: bytes = field(repr=False)
    authorities: tuple[bytes, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection as charon loads it, named `ipsec-<cidr>` or `no-ipsec-<cidr>` as operators know it.

    Attributes:
        remote: the subnet of the peers, normalised (no host bits).
        settings: None for shunts, which negotiate nothing.
    """

    name: str
    action: Action
    remote: Network
    children: tuple[Child, ...]
    settings: IkeSettings | None = field(default=None, repr=False)


@dataclass(frozen=True, slots=True)
class Authority:
    """A CA certificate to trust; `name` is derived from the certificate, so that it is its identity."""

    name: str
    certificate: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What charon needs to prove who this VM is and to judge its peers.

    Attributes:
        key_id: hex SHA-1 of the public key, as VICI's get-keys lists it.
        private_key: PKCS#8 DER.
        authorities: the CAs.
        intermediates: DER of certificates to send along with ours.
    """

    key_id: str
    private_key: Secret
    authorities: tuple[Authority, ...]
    intermediates: tuple[bytes, ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class PolicySelector:
    """What identifies a policy in the kernel, besides mark and if_id, which nobody here uses.

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


@dataclass(frozen=True, slots=True)
class DesiredPolicy:
    """A policy that the kernel must show before a connection counts as enforced."""

    selector: PolicySelector
    action: Action
    connection: str


@dataclass(frozen=True, slots=True)
class Desired:
    """Everything that should be; nothing wanted is `Desired()` and takes everything away.

    Attributes:
        role: how this VM speaks with the VMs of the deployment.
        addresses: the VM's own addresses on its uplinks, the main one first.
        notes: what an operator should know of how the config was read.
    """

    role: Role = Role.CLEAR
    addresses: tuple[Address, ...] = ()
    connections: tuple[Connection, ...] = ()
    policies: tuple[DesiredPolicy, ...] = ()
    credentials: Credentials | None = None
    notes: tuple[str, ...] = ()


# --- what one pass has read -------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CharonProcess:
    """A running charon.

    Attributes:
        pid: process id.
        started: start time, seconds since the epoch as psutil's create_time gives it.
        memory: resident bytes.
        ours: it runs on the strongswan.conf that this agent wrote.
        stopped: a signal has stopped it (SIGSTOP), or it is being traced.
    """

    pid: int
    started: float
    memory: int
    ours: bool
    stopped: bool = False


@dataclass(frozen=True, slots=True)
class LoadedConnection:
    """A connection that charon lists.

    Attributes:
        fingerprint: of what was loaded, "" where nobody remembers.
        children: names of its children, sorted.
    """

    name: str
    fingerprint: str
    children: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class ChildSa:
    """A CHILD_SA as charon sees it. Bytes and packets are None where the kernel no longer has it."""

    unique_id: int
    name: str
    state: str
    spi_in: int
    spi_out: int
    reqid: int
    local: tuple[Network, ...]
    remote: tuple[Network, ...]
    bytes_in: int
    bytes_out: int
    packets_in: int
    packets_out: int
    age: int


@dataclass(frozen=True, slots=True)
class IkeSa:
    """An IKE_SA. `age` is seconds since it was established, 0 while it is not."""

    unique_id: int
    name: str
    state: str
    local: Address
    remote: Address
    initiator: bool
    age: int
    children: tuple[ChildSa, ...] = ()


@dataclass(frozen=True, slots=True)
class Charon:
    """What charon says of itself in one pass."""

    process: CharonProcess
    version: str
    plugins: tuple[str, ...] = ()
    connections: tuple[LoadedConnection, ...] = ()
    authorities: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    sas: tuple[IkeSa, ...] = ()


@dataclass(frozen=True, slots=True)
class Policy:
    """A policy in the kernel.

    Attributes:
        esp: it requires ESP (has a required template of protocol 50 in transport mode).
        blocks: its action is block.
        optional: its template is optional (level use).
        reqid: of the template, 0 without one.
    """

    selector: PolicySelector
    priority: int
    esp: bool
    blocks: bool
    optional: bool = False
    reqid: int = 0
    index: int = 0


@dataclass(frozen=True, slots=True)
class SecurityAssociation:
    """An ESP SA in the kernel; SPI 0 is a larval one that waits for IKE. Counters as the kernel has them."""

    source: Address
    destination: Address
    spi: int
    reqid: int
    bytes: int = 0
    packets: int = 0
    added: int = 0
    last_used: int = 0
    encapsulated: bool = False


@dataclass(frozen=True, slots=True)
class Link:
    """A network interface."""

    index: int
    name: str
    mtu: int
    up: bool
    kind: str = ""
    master: int = 0
    mac: str = ""


@dataclass(frozen=True, slots=True)
class OwnAddress:
    """An address of this VM. `prefix` is its network's length; `link` the interface's index."""

    address: Address
    prefix: int
    link: int
    tentative: bool = False


@dataclass(frozen=True, slots=True)
class NetworkFacts:
    """The VM's own network as read from the kernel.

    Attributes:
        default_links: indexes of the links that a default route uses.
        gateways: default gateways.
    """

    links: tuple[Link, ...] = ()
    addresses: tuple[OwnAddress, ...] = ()
    default_links: tuple[int, ...] = ()
    gateways: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class Observed:
    """One pass's truth. Never patched, never kept beyond the pass.

    Attributes:
        charon: None while none of ours runs.
        time: when the pass began.
    """

    charon: Charon | None = None
    policies: tuple[Policy, ...] = ()
    states: tuple[SecurityAssociation, ...] = ()
    network: NetworkFacts = field(default_factory=lambda: NetworkFacts())
    time: float = 0.0


# --- steps ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class StartCharon:
    """Start charon: none of ours runs."""


@dataclass(frozen=True, slots=True)
class LoadAuthority:
    """Trust a CA."""

    authority: Authority


@dataclass(frozen=True, slots=True)
class UnloadAuthority:
    """Trust a CA no more."""

    name: str


@dataclass(frozen=True, slots=True)
class LoadKey:
    """Give charon the private key and the certificates to send along."""

    credentials: Credentials


@dataclass(frozen=True, slots=True)
class UnloadKey:
    """Take a private key from charon."""

    key_id: str


@dataclass(frozen=True, slots=True)
class LoadConnection:
    """Load a connection that charon lacks, or has otherwise."""

    connection: Connection
    fingerprint: str


@dataclass(frozen=True, slots=True)
class ReinstallPolicies:
    """Have charon install the policies of a child anew: it believes them there, the kernel lacks them."""

    connection: str
    child: str


@dataclass(frozen=True, slots=True)
class UnloadConnection:
    """Unload a connection that nobody wants."""

    name: str


Step = (
    StartCharon
    | LoadAuthority
    | LoadKey
    | LoadConnection
    | ReinstallPolicies
    | UnloadConnection
    | UnloadKey
    | UnloadAuthority
)
