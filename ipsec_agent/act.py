"""Each step of a plan to the call that performs it."""

from typing import Protocol, assert_never

from ipsec_agent.core.model import (
    Action,
    Address,
    Authority,
    Connection,
    Credentials,
    DesiredGuard,
    LinkId,
)
from ipsec_agent.core.observed import CharonProcess, Policy, RememberedPeer, SecurityAssociation
from ipsec_agent.core.steps import (
    CharonStep,
    ContinueCharon,
    DeletePolicy,
    DeleteState,
    ExemptLinks,
    GuardFlows,
    KillCharon,
    LoadAuthority,
    LoadConnection,
    LoadGuard,
    LoadKey,
    Poke,
    ReinstallPolicies,
    RememberPeers,
    RemoveGuard,
    Renew,
    SaveGuard,
    SetMtu,
    StartCharon,
    Step,
    TerminateChild,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
)


class ActingHost(Protocol):
    """What acting needs of the host."""

    async def load_guard(self, guard: DesiredGuard) -> None:
        """Load the guard's table."""

    async def save_guard(self, guard: DesiredGuard | None) -> None:
        """Save the guard's table for the next boot; None for none."""

    async def exempt_links(self, links: tuple[LinkId, ...], ports: tuple[int, ...]) -> None:
        """Tell the guard which links it does not cover, and the UDP ports of tunnels among them."""

    async def guard_flows(self, text: str) -> None:
        """Filter what flowtables forward with this table; "" removes it."""

    async def remove_guard(self) -> None:
        """Remove the guard's table."""

    async def set_mtu(self, link: int, mtu: int) -> None:
        """Set a link's MTU."""

    async def continue_charon(self, process: CharonProcess) -> None:
        """Resume a charon that a signal stopped."""

    async def kill_charon(self, process: CharonProcess) -> None:
        """End charon at once; what it put into the kernel stays."""

    async def renew(self, connection: Connection) -> None:
        """Begin to negotiate with the one peer of a connection."""

    async def terminate_child(self, unique_id: int) -> None:
        """End a CHILD_SA."""

    async def poke(self, peers: tuple[Address, ...]) -> None:
        """Send each peer one packet."""

    async def remember_peers(self, peers: tuple[RememberedPeer, ...]) -> None:
        """Save the peers on disk."""

    async def start_charon(self) -> None:
        """Start charon, and wait until it answers."""

    async def load_authority(self, authority: Authority) -> None:
        """Have charon trust a CA."""

    async def load_key(self, credentials: Credentials) -> None:
        """Give charon the private key and the intermediates."""

    async def load_connection(self, connection: Connection, fingerprint: str) -> None:
        """Load a connection, and remember its fingerprint."""

    async def reinstall(self, connection: str, child: str, action: Action) -> None:
        """Have charon install a child's policies again."""

    async def unload_connection(self, name: str) -> None:
        """Unload a connection."""

    async def terminate(self, unique_id: int, *, at_once: bool = False) -> None:
        """End an IKE_SA, perhaps without waiting for the peer's answer."""

    async def delete_policy(self, policy: Policy) -> None:
        """Delete a policy from the kernel."""

    async def delete_state(self, state: SecurityAssociation) -> None:
        """Delete an SA from the kernel."""

    async def unload_key(self, key_id: str) -> None:
        """Remove a private key."""

    async def unload_authority(self, name: str) -> None:
        """Remove a CA."""


async def perform(step: Step, host: ActingHost) -> None:
    """Perform one step.

    Raises:
        AgentError: it could not be performed.
    """
    match step:
        case LoadGuard(guard):
            await host.load_guard(guard)
        case ExemptLinks(links, ports):
            await host.exempt_links(links, ports)
        case SaveGuard(guard):
            await host.save_guard(guard)
        case GuardFlows(text):
            await host.guard_flows(text)
        case RemoveGuard():
            await host.remove_guard()
        case SetMtu(link, mtu):
            await host.set_mtu(link, mtu)
        case _:
            await _perform_on_charon(step, host)


async def _perform_on_charon(  # noqa: C901, PLR0912 - one case a step
    step: CharonStep, host: ActingHost
) -> None:
    match step:
        case ContinueCharon(process):
            await host.continue_charon(process)
        case KillCharon(process):
            await host.kill_charon(process)
        case Renew(connection):
            await host.renew(connection)
        case TerminateChild(unique_id):
            await host.terminate_child(unique_id)
        case Poke(peers):
            await host.poke(peers)
        case RememberPeers(peers):
            await host.remember_peers(peers)
        case StartCharon():
            await host.start_charon()
        case LoadAuthority(authority):
            await host.load_authority(authority)
        case LoadKey(credentials):
            await host.load_key(credentials)
        case LoadConnection(connection, fingerprint):
            await host.load_connection(connection, fingerprint)
        case ReinstallPolicies(connection_name, child, action):
            await host.reinstall(connection_name, child, action)
        case UnloadConnection(name):
            await host.unload_connection(name)
        case TerminateSa(unique_id, _, at_once):
            await host.terminate(unique_id, at_once=at_once)
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
