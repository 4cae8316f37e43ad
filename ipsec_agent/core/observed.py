"""What one pass has read of charon, the kernel and the links, as frozen records.

Times are seconds since the epoch.
"""

from collections.abc import Mapping

from msgspec import Struct, field

from ipsec_agent.core.clock import ClockFacts
from ipsec_agent.core.config import ListedCertificate
from ipsec_agent.core.deaths import Death
from ipsec_agent.core.drain import Drain
from ipsec_agent.core.esp import EspAbility
from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.model import (
    Address,
    Attempt,
    CredentialSet,
    Direction,
    Narrowing,
    Network,
    PolicySelector,
)
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.observed_peers import Neighbour, RememberedPeer
from ipsec_agent.core.sa_details import ChildDetails, IkeDetails, Sequence
from ipsec_agent.core.strongswan_conf import IKE_PORTS
from ipsec_agent.core.switch import Switch
from ipsec_agent.errors import AgentError


class CharonProcess(Struct, frozen=True):
    """A running charon.

    Attributes:
        pid: process id.
        started: start time, seconds since the epoch by the clock of now.
        memory: resident bytes.
        ours: it runs on the strongswan.conf that this agent wrote.
        stopped: a signal has stopped it (SIGSTOP), or it is being traced.
        reachable: its VICI socket is where it should be.
        birth: tells it from all other processes, "" where that is not known.
    """

    pid: int
    started: float
    memory: int
    ours: bool
    stopped: bool = False
    reachable: bool = True
    birth: str = ""

    @property
    def identity(self) -> str:
        """The same as long as it lives, also where the clock is set, which changes `started`."""
        return self.birth or f"{self.pid} {self.started}"


class LoadedConnection(Struct, frozen=True):
    """A connection that charon lists.

    Attributes:
        fingerprint: of what was loaded, "" where it is not remembered.
        children: names of its children, sorted.
    """

    name: str
    fingerprint: str
    children: tuple[str, ...] = ()


class ChildSa(Struct, frozen=True):
    """A CHILD_SA as charon sees it; counters as charon read them from the kernel.

    Attributes:
        restricted: a protocol or a port narrows its selectors.
        algorithms: what was negotiated, such as AES_GCM_16-128.
        details: what nobody decides by.
    """

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
    transport: bool = True
    restricted: bool = False
    algorithms: str = ""
    details: ChildDetails = ChildDetails()


class IkeSa(Struct, frozen=True):
    """An IKE_SA.

    Attributes:
        age: seconds since it was established, 0 while it is not.
        remote_id: who the peer says that it is, such as `CN=vm`; "" while it has not said it.
        made_with: mark of the set of ours that it was made with, "" where it is not known.
        met: where the peer was when it was first seen, None where that is not known.
        details: what nobody decides by.
    """

    unique_id: int
    name: str
    state: str
    local: Address
    remote: Address
    initiator: bool
    age: int
    children: tuple[ChildSa, ...] = ()
    remote_id: str = ""
    algorithms: str = ""
    made_with: str = ""
    met: Address | None = None
    details: IkeDetails = IkeDetails()


class Charon(Struct, frozen=True):
    """What charon says of itself in one pass.

    Attributes:
        responsive: it answered in time; where not, all that it should have said is empty.
        credentials: mark of the key and the certificates that were loaded, "" if not known.
        missed: deadlines in a row that it let pass; 0 while the first answer is still awaited.
        idle: how many of the last ones in a row it let pass without doing anything.
        silent: seconds for which it has let deadlines pass.
        renewing: connections of renewals to come; `connections` has none of them.
        exchanges: names of the key exchanges that it can do; empty where it was not asked.
        certificates: those that it lists, as of 10 s before at the most.
        sets: the certificates and CAs that it has had, the newest last.
        attempts: of renewals, by the name of their connection.
    """

    process: CharonProcess
    version: str = ""
    responsive: bool = True
    missed: int = 0
    idle: int = 0
    silent: float = 0.0
    plugins: tuple[str, ...] = ()
    connections: tuple[LoadedConnection, ...] = ()
    authorities: tuple[str, ...] = ()
    keys: tuple[str, ...] = ()
    credentials: str = ""
    sas: tuple[IkeSa, ...] = ()
    renewing: frozenset[str] = frozenset()
    certificates: tuple[ListedCertificate, ...] = ()
    exchanges: frozenset[str] = frozenset()
    sets: tuple[CredentialSet, ...] = ()
    attempts: Mapping[str, Attempt] = field(default_factory=dict)


class PortHolder(Struct, frozen=True):
    """A UDP socket on one of IKE's ports that is not charon's.

    Attributes:
        version: of its family, 4 or 6; one of 6 on `::` may take IPv4, too.
        pid: 0 where its process cannot be seen.
        user: whose it is, 0 for root.
    """

    version: int
    port: int
    address: Address
    pid: int = 0
    name: str = ""
    user: int = 0


class IkePorts(Struct, frozen=True):
    """Who has IKE's UDP ports in this network namespace.

    Attributes:
        owned: family (4 or 6) and port of each socket that charon has.
        others: those of other programs.
        versions: families that this kernel speaks.
        contested: another process had one since charon's start, or that is not known.
        addresses: that of each of charon's sockets, with its family and port.
    """

    owned: frozenset[tuple[int, int]] = frozenset()
    others: tuple[PortHolder, ...] = ()
    versions: tuple[int, ...] = ()
    contested: bool = True
    addresses: tuple[tuple[int, int, Address], ...] = ()

    @property
    def well(self) -> bool:
        """Charon has them all, and no other process has one."""
        return not self.others and len(self.owned) == len(IKE_PORTS) * len(self.versions) > 0


class Policy(Struct, frozen=True):
    """A policy in the kernel.

    Attributes:
        esp: it requires ESP (has a required template of protocol 50 in transport mode).
        blocks: its action is block.
        optional: its only template is ESP in transport mode of level use: clear without an SA.
        reqid: of the template, 0 without one.
        added: when it was installed or replaced; 0 where that is unknown.
        tunnel: the far end of its first template in another mode than transport, None without one.
        narrowed: what packets must have besides, None where nothing.
    """

    selector: PolicySelector
    priority: int
    esp: bool
    blocks: bool
    optional: bool = False
    reqid: int = 0
    index: int = 0
    added: int = 0
    tunnel: Address | None = None
    narrowed: Narrowing | None = None


class SecurityAssociation(Struct, frozen=True):
    """An ESP SA in the kernel, SPI 0 a larval one; times are seconds since the epoch.

    Attributes:
        last_used: 0 where the kernel does not tell it (it does from 6.2 on, xfrm_output.c).
        between_hosts: in transport mode, with a selector for its own two addresses only.
        sequence: its numbers of packets.
    """

    source: Address
    destination: Address
    spi: int
    reqid: int
    bytes: int = 0
    packets: int = 0
    added: int = 0
    first_used: int = 0
    last_used: int = 0
    encapsulated: bool = False
    between_hosts: bool = True
    sequence: Sequence = Sequence()


class Tunnel(Struct, frozen=True):
    """What the outer packets of a tunnel bear.

    Attributes:
        source: their source, None where a route chooses it.
        remotes: the far ends that are known, of all peers.
        port: the UDP port on which it receives, 0 of a kind that has none or does not tell it.
    """

    source: Address | None = None
    remotes: tuple[Address, ...] = ()
    port: int = 0


class Link(Struct, frozen=True):
    """A network interface.

    Attributes:
        lower: index of its other end (veth) or of the link below it (VLAN ...), 0 if none.
        namespace: number of the network namespace that `lower` is in, None where it is the same.
        tunnel: of those kinds that the VM ends itself.
        port: the UDP port that the kernel has for it, 0 of a kind that has none or does not tell.
        altnames: its other names (`ip link property`).
    """

    index: int
    name: str
    mtu: int
    up: bool
    kind: str = ""
    master: int = 0
    lower: int = 0
    namespace: int | None = None
    tunnel: Tunnel | None = None
    port: int = 0
    loopback: bool = False
    altnames: tuple[str, ...] = ()

    @property
    def elsewhere(self) -> bool:
        """Whether its other end is in another network namespace, such as a container's."""
        return self.namespace is not None


class Namespace(Struct, frozen=True):
    """Another network namespace on this VM that a link of ours leads to, or has gone to.

    All numbers of namespaces are those by which ours counts them (RTM_GETNSID).

    Attributes:
        links: what is in it.
        name: what operators know it by; "" where that was not looked for.
    """

    number: int
    links: tuple[Link, ...]
    name: str = ""


class OwnAddress(Struct, frozen=True):
    """An address of this VM. `prefix` is its network's length; `link` the interface's index."""

    address: Address
    prefix: int
    link: int


class NetworkFacts(Struct, frozen=True):
    """The VM's own network as read from the kernel.

    Attributes:
        default_links: indexes of the links that a default route uses.
        gateways: default gateways.
        may_enter: this process may enter other network namespaces.
        namespaces: other ones on this VM; one that could not be read is not among them.
        number: of this network namespace, None where nothing in another one refers to it.
    """

    links: tuple[Link, ...] = ()
    addresses: tuple[OwnAddress, ...] = ()
    default_links: tuple[int, ...] = ()
    gateways: tuple[Address, ...] = ()
    may_enter: bool = False
    namespaces: tuple[Namespace, ...] = ()
    number: int | None = None


class Observed(Struct, frozen=True):
    """One pass's truth. Never patched, never kept beyond the pass.

    Attributes:
        charon: None while none of ours runs.
        guard: the guard's table, None where there is none.
        saved_guard: mark of the text that the next boot loads, "" where there is none.
        ike_ports: who has IKE's ports, None where that is not known.
        switches: settings that take IPsec from packets.
        default_blocks: where the kernel blocks what no policy selects.
        counters: /proc/net/xfrm_stat, by the kernel's names; empty where the kernel keeps none.
        inherited: what an earlier charon left.
        deaths: of charon, those that nobody of ours asked for, the oldest first.
        remembered: peers that had an SA with this VM, perhaps before it crashed.
        neighbours: of the peers that were asked for, those that the kernel knows.
        esp: whether the kernel can do the ESP that is wanted.
        unreadable: what could not be read, by the name of its attribute, and why; it is empty then.
        clock: what tells the time beside this VM's clock, None where nothing was asked.
        drain: a gentle shutdown that is under way, or has ended charon; None without one.
        time: when the pass began.
    """

    charon: Charon | None = None
    policies: tuple[Policy, ...] = ()
    states: tuple[SecurityAssociation, ...] = ()
    network: NetworkFacts = field(default_factory=NetworkFacts)
    guard: GuardTable | None = None
    saved_guard: str = ""
    inherited: Inherited = Inherited()
    deaths: tuple[Death, ...] = ()
    ike_ports: IkePorts | None = None
    switches: tuple[Switch, ...] = ()
    default_blocks: tuple[Direction, ...] = ()
    counters: tuple[tuple[str, int], ...] = ()
    remembered: tuple[RememberedPeer, ...] = ()
    neighbours: tuple[Neighbour, ...] = ()
    esp: EspAbility = field(default_factory=EspAbility)
    clock: ClockFacts | None = None
    drain: Drain | None = None
    unreadable: tuple[tuple[str, AgentError], ...] = ()
    time: float = 0.0
