"""What act.py can perform, as values with a name for the log."""

from dataclasses import dataclass

from ipsec_agent.core.model import Authority, Connection, Credentials


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
    """Have charon install a child's policies anew, which it believes there and the kernel lacks."""

    connection: str
    child: str


@dataclass(frozen=True, slots=True)
class UnloadConnection:
    """Unload a connection that nobody wants."""

    name: str


@dataclass(frozen=True, slots=True)
class TerminateSa:
    """End an IKE_SA and its CHILD_SAs, because nothing wants them."""

    unique_id: int
    because: str


Step = (
    StartCharon
    | LoadAuthority
    | LoadKey
    | LoadConnection
    | ReinstallPolicies
    | UnloadConnection
    | TerminateSa
    | UnloadKey
    | UnloadAuthority
)
