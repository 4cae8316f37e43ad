"""Each step of a plan to the call that performs it."""

from typing import Protocol, assert_never

from ipsec_agent.core.model import Authority, Connection, Credentials
from ipsec_agent.core.observed import Policy, SecurityAssociation
from ipsec_agent.core.steps import (
    DeletePolicy,
    DeleteState,
    LoadAuthority,
    LoadConnection,
    LoadKey,
    ReinstallPolicies,
    StartCharon,
    Step,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
)


class ActingHost(Protocol):
    """What acting needs of the host."""

    async def start_charon(self) -> None:
        """Start charon, and wait until it answers."""

    async def load_authority(self, authority: Authority) -> None:
        """Have charon trust a CA."""

    async def load_key(self, credentials: Credentials) -> None:
        """Give charon the private key and the intermediates."""

    async def load_connection(self, connection: Connection, fingerprint: str) -> None:
        """Load a connection, and remember its fingerprint."""

    async def reinstall(self, connection: str, child: str) -> None:
        """Have charon install a child's policies anew."""

    async def unload_connection(self, name: str) -> None:
        """Unload a connection."""

    async def terminate(self, unique_id: int) -> None:
        """End an IKE_SA."""

    async def delete_policy(self, policy: Policy) -> None:
        """Delete a policy from the kernel."""

    async def delete_state(self, state: SecurityAssociation) -> None:
        """Delete an SA from the kernel."""

    async def unload_key(self, key_id: str) -> None:
        """Take a private key away."""

    async def unload_authority(self, name: str) -> None:
        """Trust a CA no more."""


async def perform(step: Step, host: ActingHost) -> None:  # noqa: C901 - one case a step
    """Perform one step.

    Raises:
        AgentError: it could not be performed.
    """
    match step:
        case StartCharon():
            await host.start_charon()
        case LoadAuthority(authority):
            await host.load_authority(authority)
        case LoadKey(credentials):
            await host.load_key(credentials)
        case LoadConnection(connection, fingerprint):
            await host.load_connection(connection, fingerprint)
        case ReinstallPolicies(connection_name, child):
            await host.reinstall(connection_name, child)
        case UnloadConnection(name):
            await host.unload_connection(name)
        case TerminateSa(unique_id):
            await host.terminate(unique_id)
        case DeletePolicy(policy):
            await host.delete_policy(policy)
        case DeleteState(state):
            await host.delete_state(state)
        case UnloadKey(key_id):
            await host.unload_key(key_id)
        case UnloadAuthority(name):
            await host.unload_authority(name)
        case _:
            assert_never(step)
