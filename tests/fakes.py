"""A machine made of dicts: the one fake at the border of the loop, with the verbs it needs."""

from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import policies
from ipsec_agent.core.esp import EspAbility
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.model import (
    Action,
    Address,
    Authority,
    Connection,
    Credentials,
    DesiredGuard,
    DesiredPolicy,
    Direction,
    LinkId,
)
from ipsec_agent.core.observed import (
    Charon,
    CharonProcess,
    IkePorts,
    IkeSa,
    Inherited,
    Link,
    LoadedConnection,
    NetworkFacts,
    OwnAddress,
    Policy,
    RememberedPeer,
    SecurityAssociation,
    Switch,
)
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.swanctl import credentials_mark
from ipsec_agent.errors import CharonRefusedError, CharonStartError

PROCESS = CharonProcess(pid=4711, started=1000.0, memory=1 << 20, ours=True)


def network(*addresses: str) -> NetworkFacts:
    """A VM with one uplink that bears these addresses."""
    return NetworkFacts(
        links=(Link(1, "lo", 65536, up=True, loopback=True), Link(2, "eth0", 1500, up=True)),
        addresses=tuple(OwnAddress(ip_address(text), 24, 2) for text in addresses),
        default_links=(2,),
    )


def installed(policy: DesiredPolicy) -> Policy:
    """A desired policy as the kernel shows it."""
    esp = policy.action is Action.ENCRYPT
    selector = policy.selector
    bonus = 512 * (selector.source.prefixlen + selector.destination.prefixlen)
    bonus += 256 * bool(selector.protocol) + 64 * bool(selector.source_port)
    return Policy(selector, (400000 if esp else 199999) - bonus, esp=esp, blocks=False)


class FakeMachine:
    """charon and a kernel, as dicts. `fail_at` makes the n-th call of a verb fail."""

    def __init__(self, facts: NetworkFacts) -> None:
        self.facts = facts
        self.process: CharonProcess | None = None
        self.loaded: dict[str, tuple[Connection, str]] = {}
        self.trusted: dict[str, Authority] = {}
        self.held: dict[str, Credentials] = {}
        self.kernel: dict[object, Policy] = {}
        self.sas: dict[int, IkeSa] = {}
        self.table: GuardTable | None = None
        self.ports: IkePorts | None = None
        self.saved = ""
        self.ability = EspAbility()
        self.kernel_sas: tuple[SecurityAssociation, ...] = ()
        self.peers: tuple[RememberedPeer, ...] = ()
        self.poked: list[Address] = []
        self.responsive = True
        self.missed = 0
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.refuses_to_start = False

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_at is not None and len(self.calls) == self.fail_at:
            raise CharonRefusedError("refused for the test")

    async def charon(self) -> Charon | None:
        if self.process is None:
            return None
        if not self.responsive or self.process.stopped:
            return Charon(self.process, responsive=False, missed=self.missed, idle=self.missed)
        return Charon(
            self.process,
            "5.9.8",
            connections=tuple(
                LoadedConnection(name, mark, tuple(c.name for c in item.children))
                for name, (item, mark) in self.loaded.items()
            ),
            authorities=tuple(self.trusted),
            keys=tuple(self.held),
            credentials=next((credentials_mark(one) for one in self.held.values()), ""),
            sas=tuple(self.sas.values()),
        )

    async def ike_ports(self) -> IkePorts | None:
        return self.ports

    async def policies(self) -> tuple[Policy, ...]:
        return tuple(self.kernel.values())

    async def states(self) -> tuple[SecurityAssociation, ...]:
        return self.kernel_sas

    async def network(self) -> NetworkFacts:
        return self.facts

    async def esp(self, _network: NetworkFacts) -> EspAbility:
        return self.ability

    async def guard(self) -> GuardTable | None:
        return self.table

    async def saved_guard(self) -> str:
        return self.saved

    async def save_guard(self, guard: DesiredGuard | None) -> None:
        self._call("save guard")
        self.saved = guard.mark if guard else ""

    async def inherited(self) -> Inherited:
        return Inherited()

    async def counters(self) -> tuple[tuple[str, int], ...]:
        return ()

    async def switches(self) -> tuple[Switch, ...]:
        return ()

    async def default_blocks(self) -> tuple[Direction, ...]:
        return ()

    async def remembered(self) -> tuple[RememberedPeer, ...]:
        return self.peers

    def adopt(self, config: Config) -> None:
        pass

    async def load_guard(self, guard: DesiredGuard) -> None:
        self._call("load guard")
        kept = self.table or GuardTable("")
        self.table = replace(
            kept,
            form="form",
            mark=guard.mark,
            exempt=guard.exempt,
            overlay_ports=guard.overlay_ports,
        )

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        if self.table is not None and self.table.mark == guard.mark:
            return False
        await self.load_guard(guard)
        return True

    async def exempt_links(self, links: tuple[LinkId, ...], ports: tuple[int, ...]) -> None:
        self._call("exempt links")
        assert self.table is not None
        self.table = replace(self.table, exempt=links, overlay_ports=ports)

    async def guard_flows(self, text: str) -> None:
        self._call("guard flows" if text else "guard no flows")
        assert self.table is not None
        self.table = replace(self.table, flow_rules=mark(text) if text else None)

    async def remove_guard(self) -> None:
        self._call("remove guard")
        self.table = None

    async def set_mtu(self, link: int, mtu: int) -> None:
        self._call(f"mtu {link} {mtu}")
        links = tuple(
            replace(one, mtu=mtu) if one.index == link else one for one in self.facts.links
        )
        self.facts = replace(self.facts, links=links)

    async def continue_charon(self, process: CharonProcess) -> None:
        self._call("continue")
        self.process = replace(process, stopped=False)

    async def kill_charon(self, process: CharonProcess) -> None:
        self._call("kill")
        self.kill_charon_by_hand()

    async def renew(self, connection: Connection) -> None:
        self._call(f"renew {connection.remote}")

    async def terminate_child(self, unique_id: int) -> None:
        self._call(f"terminate child {unique_id}")
        self.sas = {
            number: replace(
                sa, children=tuple(one for one in sa.children if one.unique_id != unique_id)
            )
            for number, sa in self.sas.items()
        }

    async def poke(self, peers: tuple[Address, ...]) -> None:
        self._call("poke")
        self.poked += peers
        self.peers = tuple(
            replace(peer, poked=peer.poked or peer.address in peers) for peer in self.peers
        )

    async def remember_peers(self, peers: tuple[RememberedPeer, ...]) -> None:
        self._call("remember peers")
        self.peers = peers

    async def start_charon(self) -> None:
        self._call("start")
        if self.refuses_to_start:
            raise CharonStartError("did not come up")
        self.ports = None
        self.process = PROCESS

    def kill_charon_by_hand(self) -> None:
        """As SIGKILL: what it had is forgotten, the kernel keeps its policies."""
        self.process = None
        self.responsive, self.missed = True, 0
        self.loaded, self.trusted, self.held, self.sas = {}, {}, {}, {}

    async def load_authority(self, authority: Authority) -> None:
        self._call(f"load CA {authority.name}")
        self.trusted[authority.name] = authority

    async def load_key(self, credentials: Credentials) -> None:
        self._call("key")
        self.held[credentials.key_id] = credentials

    async def load_connection(self, connection: Connection, fingerprint: str) -> None:
        self._call(f"load {connection.name}")
        self._forget(connection.name)
        self.loaded[connection.name] = (connection, fingerprint)
        for policy in policies(connection):
            self.kernel[policy.selector] = installed(policy)

    async def reinstall(self, connection: str, child: str, action: Action) -> None:
        self._call(f"reinstall {child}")
        for policy in policies(self.loaded[connection][0]):
            self.kernel[policy.selector] = installed(policy)

    async def unload_connection(self, name: str) -> None:
        self._call(f"unload {name}")
        self._forget(name)

    def _forget(self, name: str) -> None:
        if name in self.loaded:
            for policy in policies(self.loaded.pop(name)[0]):
                self.kernel.pop(policy.selector, None)

    async def terminate(self, unique_id: int, *, at_once: bool = False) -> None:
        self._call(f"terminate {unique_id}" + (" at once" if at_once else ""))
        self.sas.pop(unique_id)

    async def delete_policy(self, policy: Policy) -> None:
        self._call("delete policy")
        self.kernel.pop(policy.selector)

    async def delete_state(self, state: SecurityAssociation) -> None:
        self._call("delete state")

    async def unload_key(self, key_id: str) -> None:
        self._call(f"unload key {key_id}")
        self.held.pop(key_id)

    async def unload_authority(self, name: str) -> None:
        self._call(f"untrust {name}")
        self.trusted.pop(name)

    def stop_by_signal(self) -> None:
        """As SIGSTOP."""
        assert self.process is not None
        self.process = replace(self.process, stopped=True)
