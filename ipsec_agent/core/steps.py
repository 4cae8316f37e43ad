"""What the machine performs, as values; `str` of one is its line in the log, without a secret."""

from msgspec import Struct

from ipsec_agent.core.model import (
    Action,
    Address,
    Authority,
    Connection,
    Credentials,
    DesiredGuard,
    LinkId,
)
from ipsec_agent.core.observed import CharonProcess, Policy, SecurityAssociation
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.terse import Terse
from ipsec_agent.core.words import several


class LoadGuard(Struct, frozen=True):
    """Load the guard's table, in one transaction with its exempt links."""

    guard: DesiredGuard

    def __str__(self) -> str:
        return "load the guard"


class ExemptLinks(Struct, frozen=True):
    """Set the links that the guard exempts; rules and counters stay.

    Attributes:
        instead: the links that it exempts now.
    """

    links: tuple[LinkId, ...]
    overlay_ports: tuple[int, ...] = ()
    instead: tuple[LinkId, ...] = ()

    def __str__(self) -> str:
        return f"set the links that the guard exempts: {', '.join(map(str, self.links)) or 'none'}"


class SaveGuard(Struct, frozen=True):
    """Save the guard's table for the next boot; None for none."""

    guard: DesiredGuard | None

    def __str__(self) -> str:
        return "save the guard" if self.guard else "forget the saved guard"


class RemoveGuard(Struct, frozen=True):
    """Remove the guard's table: the operator wants none."""

    def __str__(self) -> str:
        return "remove the guard"


class GuardFlows(Terse, frozen=True):
    """Load the table that filters what flowtables forward; an empty text removes it."""

    unshown = ("text",)

    text: str

    def __str__(self) -> str:
        return "filter flowtables" if self.text else "stop filtering flowtables"


class StartCharon(Struct, frozen=True):
    """Start charon: none of ours runs."""

    def __str__(self) -> str:
        return "start charon"


class ContinueCharon(Struct, frozen=True):
    """Let a charon go on that a signal has stopped."""

    process: CharonProcess

    def __str__(self) -> str:
        return f"resume charon (pid {self.process.pid})"


class KillCharon(Struct, frozen=True):
    """End a charon that no longer answers, so that what it put into the kernel stays there."""

    process: CharonProcess
    because: str

    def __str__(self) -> str:
        return f"kill charon (pid {self.process.pid}): {self.because}"


class LoadAuthority(Struct, frozen=True):
    """Trust a CA."""

    authority: Authority

    def __str__(self) -> str:
        return f"load CA {self.authority.name}"


class UnloadAuthority(Struct, frozen=True):
    """Remove a CA."""

    name: str

    def __str__(self) -> str:
        return f"unload CA {self.name}"


class LoadKey(Struct, frozen=True):
    """Give charon the private key and the certificates to send along.

    Attributes:
        only: charon forgets what it was given before, but for CAs of load-authority.
    """

    credentials: Credentials
    only: bool = False

    def __str__(self) -> str:
        forget = "forget earlier certificates, " if self.only else ""
        return f"{forget}load key {self.credentials.key_id[:16]}"


class UnloadKey(Struct, frozen=True):
    """Take a private key from charon."""

    key_id: str

    def __str__(self) -> str:
        return f"unload key {self.key_id[:16]}"


class LoadConnection(Struct, frozen=True):
    """Load a connection that charon lacks, or has otherwise."""

    connection: Connection
    fingerprint: str

    def __str__(self) -> str:
        return f"load {self.connection.name}"


class ReinstallPolicies(Struct, frozen=True):
    """Have charon install again the policies of a child, which it takes for installed."""

    connection: str
    child: str
    action: Action

    def __str__(self) -> str:
        return f"reinstall the policies of {self.child}"


class UnloadConnection(Struct, frozen=True):
    """Unload a connection that is not wanted."""

    name: str

    def __str__(self) -> str:
        return f"unload {self.name}"


class TerminateSa(Struct, frozen=True):
    """End an IKE_SA and its CHILD_SAs, because nothing wants them.

    Attributes:
        at_once: without waiting for the peer's answer, until which they would stay.
    """

    unique_id: int
    because: str
    at_once: bool = False

    def __str__(self) -> str:
        return f"terminate IKE_SA {self.unique_id}: {self.because}"


class TerminateChild(Struct, frozen=True):
    """End a CHILD_SA."""

    unique_id: int
    because: str

    def __str__(self) -> str:
        return f"terminate CHILD_SA {self.unique_id}: {self.because}"


class Renew(Struct, frozen=True):
    """Negotiate new SAs with a peer while those of an earlier charon still carry its traffic."""

    connection: Connection

    def __str__(self) -> str:
        return f"renew the SA with {self.connection.remote}"


class Poke(Struct, frozen=True):
    """Send each peer one packet, which has charon negotiate: they may hold SAs that we lost."""

    peers: tuple[Address, ...]

    def __str__(self) -> str:
        return f"poke {several(len(self.peers), 'peer')}"


class RememberPeers(Struct, frozen=True):
    """Write down the peers that have, or had, an SA with this VM."""

    peers: tuple[RememberedPeer, ...]

    def __str__(self) -> str:
        return f"remember {several(len(self.peers), 'peer')}"


class SaveTime(Struct, frozen=True):
    """Write down the time, for a start at which the clock is wrong."""

    time: float

    def __str__(self) -> str:
        return "save the time"


class SetMtu(Struct, frozen=True):
    """Give a link the MTU that IPsec needs."""

    link: int
    mtu: int

    def __str__(self) -> str:
        return f"set the MTU of link {self.link} to {self.mtu}"


class DeletePolicy(Struct, frozen=True):
    """Delete a policy of an earlier charon, which this one does not know."""

    policy: Policy

    def __str__(self) -> str:
        selector = self.policy.selector
        return (
            f"delete the orphan policy {selector.direction.name.lower()}"
            f" {selector.source} -> {selector.destination}"
        )


class DeleteState(Struct, frozen=True):
    """Delete an SA of an earlier charon, which no charon would ever rekey or end."""

    state: SecurityAssociation

    def __str__(self) -> str:
        return f"delete the orphan SA {self.state.source} -> {self.state.destination}"


class SetLevel(Struct, frozen=True):
    """Have a trap require ESP, or use it only where there is an SA; charon cannot say it."""

    policy: Policy
    optional: bool

    def __str__(self) -> str:
        selector = self.policy.selector
        return (
            f"make IPsec {'optional' if self.optional else 'required'} by the trap"
            f" {selector.direction.name.lower()} {selector.source} -> {selector.destination}"
        )


KernelStep = (
    LoadGuard
    | ExemptLinks
    | SaveGuard
    | GuardFlows
    | RemoveGuard
    | SetMtu
    | SetLevel
    | DeletePolicy
    | DeleteState
)
"""What the kernel does, however charon is."""

ViciStep = (
    LoadAuthority
    | LoadKey
    | LoadConnection
    | ReinstallPolicies
    | UnloadConnection
    | TerminateSa
    | TerminateChild
    | UnloadKey
    | UnloadAuthority
)
"""What charon is told on its VICI socket."""

CharonStep = StartCharon | ContinueCharon | KillCharon | Renew | Poke | RememberPeers | ViciStep
"""What charon does, or what is done to it; nearly none of it is possible while charon hangs."""

Step = KernelStep | CharonStep | SaveTime
