"""What act.py can perform, as values; `str` of one is its line in the log, without a secret."""

from dataclasses import dataclass

from ipsec_agent.core.model import Authority, Connection, Credentials
from ipsec_agent.core.observed import Policy, SecurityAssociation


@dataclass(frozen=True, slots=True)
class StartCharon:
    """Start charon: none of ours runs."""

    def __str__(self) -> str:
        return "start charon"


@dataclass(frozen=True, slots=True)
class LoadAuthority:
    """Trust a CA."""

    authority: Authority

    def __str__(self) -> str:
        return f"trust {self.authority.name}"


@dataclass(frozen=True, slots=True)
class UnloadAuthority:
    """Trust a CA no more."""

    name: str

    def __str__(self) -> str:
        return f"trust {self.name} no more"


@dataclass(frozen=True, slots=True)
class LoadKey:
    """Give charon the private key and the certificates to send along."""

    credentials: Credentials

    def __str__(self) -> str:
        return f"load key {self.credentials.key_id[:16]}"


@dataclass(frozen=True, slots=True)
class UnloadKey:
    """Take a private key from charon."""

    key_id: str

    def __str__(self) -> str:
        return f"unload key {self.key_id[:16]}"


@dataclass(frozen=True, slots=True)
class LoadConnection:
    """Load a connection that charon lacks, or has otherwise."""

    connection: Connection
    fingerprint: str

    def __str__(self) -> str:
        return f"load {self.connection.name}"


@dataclass(frozen=True, slots=True)
class ReinstallPolicies:
    """Have charon install a child's policies anew, which it believes there and the kernel lacks."""

    connection: str
    child: str

    def __str__(self) -> str:
        return f"install the policies of {self.child} anew"


@dataclass(frozen=True, slots=True)
class UnloadConnection:
    """Unload a connection that nobody wants."""

    name: str

    def __str__(self) -> str:
        return f"unload {self.name}"


@dataclass(frozen=True, slots=True)
class TerminateSa:
    """End an IKE_SA and its CHILD_SAs, because nothing wants them."""

    unique_id: int
    because: str

    def __str__(self) -> str:
        return f"terminate IKE_SA {self.unique_id}: {self.because}"


@dataclass(frozen=True, slots=True)
class DeletePolicy:
    """Delete a policy of an earlier charon, which this one does not know."""

    policy: Policy

    def __str__(self) -> str:
        selector = self.policy.selector
        return (
            f"delete the orphan policy {selector.direction.name.lower()}"
            f" {selector.source} -> {selector.destination}"
        )


@dataclass(frozen=True, slots=True)
class DeleteState:
    """Delete an SA of an earlier charon, which nobody would ever rekey or end."""

    state: SecurityAssociation

    def __str__(self) -> str:
        return f"delete the orphan SA {self.state.source} -> {self.state.destination}"


Step = (
    StartCharon
    | LoadAuthority
    | LoadKey
    | LoadConnection
    | ReinstallPolicies
    | DeletePolicy
    | UnloadConnection
    | TerminateSa
    | DeleteState
    | UnloadKey
    | UnloadAuthority
)
