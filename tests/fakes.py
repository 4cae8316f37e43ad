"""A machine made of dicts: the one fake at the border of the loop."""

import time
from ipaddress import ip_address
from typing import assert_never

from msgspec.structs import replace

from ipsec_agent.core.clock import ClockFacts
from ipsec_agent.core.config import Config
from ipsec_agent.core.deaths import Death
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
)
from ipsec_agent.core.observed import (
    Charon,
    CharonProcess,
    IkePorts,
    IkeSa,
    Link,
    LoadedConnection,
    NetworkFacts,
    Observed,
    OwnAddress,
    Policy,
    SecurityAssociation,
)
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.steps import (
    CharonStep,
    ContinueCharon,
    DeletePolicy,
    DeleteState,
    ExemptLinks,
    GuardFlows,
    KernelStep,
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
    SaveTime,
    SetLevel,
    SetMtu,
    StartCharon,
    Step,
    TerminateChild,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
    ViciStep,
)
from ipsec_agent.core.swanctl import credentials_mark
from ipsec_agent.errors import CharonRefusedError, CharonStartError, KernelError

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
    """charon and a kernel, as dicts. `fail_at` makes the n-th step fail."""

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
        self.deaths: tuple[Death, ...] = ()
        self.saved = ""
        self.ability = EspAbility()
        self.kernel_sas: tuple[SecurityAssociation, ...] = ()
        self.peers: tuple[RememberedPeer, ...] = ()
        self.clock: ClockFacts | None = None
        self.clock_off = 0.0
        self.poked: list[Address] = []
        self.responsive = True
        self.missed = 0
        self.calls: list[str] = []
        self.fail_at: int | None = None
        self.refuses_to_start = self.refuses_loads = False
        self.outdated = 0
        self.probed: tuple[Address, ...] = ()
        self.suspected: tuple[Address, ...] = ()

    def _call(self, name: str) -> None:
        self.calls.append(name)
        if self.fail_at is not None and len(self.calls) == self.fail_at:
            raise CharonRefusedError("refused for the test")

    async def observe(self) -> Observed:
        await self.before_answer()
        return Observed(
            charon=self._charon(),
            policies=tuple(self.kernel.values()),
            states=self.kernel_sas,
            network=self.facts,
            guard=self.table,
            saved_guard=self.saved,
            ike_ports=self.ports,
            deaths=self.deaths,
            remembered=self.peers,
            esp=self.ability,
            clock=self.clock,
            time=time.time() + self.clock_off,
        )

    async def before_answer(self) -> None:
        """What charon's answer takes; none here."""

    def _charon(self) -> Charon | None:
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

    def adopt(self, config: Config) -> None:
        pass

    def suspect(self, peers: tuple[Address, ...]) -> None:
        self.suspected = peers

    def probe(self, peers: tuple[Address, ...]) -> None:
        self.probed += peers

    def outdate(self) -> None:
        self.outdated += 1

    async def restore_guard(self, guard: DesiredGuard) -> bool:
        if self.table is not None and self.table.mark == guard.mark:
            return False
        await self.perform(LoadGuard(guard))
        return True

    async def perform(self, step: Step) -> None:
        if isinstance(step, SaveTime):
            self._call("save time")
            assert self.clock is not None
            self.clock = replace(self.clock, saved=step.time, ours=True)
        elif isinstance(step, KernelStep):
            self._change_kernel(step)
        else:
            self._change_charon(step)

    def _change_kernel(self, step: KernelStep) -> None:  # noqa: C901 - one case a step
        match step:
            case LoadGuard(guard):
                self._call("load guard")
                self.table = replace(
                    self.table or GuardTable(""),
                    form="form",
                    mark=guard.mark,
                    exempt=guard.exempt,
                    overlay_ports=guard.overlay_ports,
                )
            case ExemptLinks(links, ports, _):
                self._call("exempt links")
                assert self.table is not None
                self.table = replace(self.table, exempt=links, overlay_ports=ports)
            case SaveGuard(wanted):
                self._call("save guard")
                self.saved = wanted.mark if wanted else ""
            case GuardFlows(text):
                self._call("guard flows" if text else "guard no flows")
                assert self.table is not None
                self.table = replace(self.table, flow_rules=mark(text) if text else None)
            case RemoveGuard():
                self._call("remove guard")
                self.table = None
            case SetMtu(link, mtu):
                self._call(f"mtu {link} {mtu}")
                links_then = tuple(
                    replace(one, mtu=mtu) if one.index == link else one for one in self.facts.links
                )
                self.facts = replace(self.facts, links=links_then)
            case SetLevel(policy, optional):
                self._call("optional" if optional else "required")
                # The kernel makes one where there is none.
                self.kernel[policy.selector] = replace(policy, esp=not optional, optional=optional)
            case DeletePolicy(policy):
                self._call("delete policy")
                if self.kernel.pop(policy.selector, None) is None:
                    raise KernelError("there is no such policy")
            case DeleteState():
                self._call("delete state")
            case _:
                assert_never(step)

    def _change_charon(self, step: CharonStep) -> None:
        match step:
            case StartCharon():
                self._call("start")
                if self.refuses_to_start:
                    raise CharonStartError("did not come up")
                self.ports = None
                self.process = PROCESS
            case ContinueCharon(process):
                self._call("continue")
                self.process = replace(process, stopped=False)
            case KillCharon():
                self._call("kill")
                self.kill_charon_by_hand()
            case Renew(connection):
                self._call(f"renew {connection.remote}")
            case Poke(peers):
                self._call("poke")
                self.poked += peers
                self.peers = tuple(
                    replace(peer, poked=peer.poked or peer.address in peers) for peer in self.peers
                )
            case RememberPeers(peers):
                self._call("remember peers")
                self.peers = peers
            case _:
                self._tell(step)

    def _tell(self, step: ViciStep) -> None:
        match step:
            case LoadAuthority(authority):
                self._call(f"load CA {authority.name}")
                self.trusted[authority.name] = authority
            case LoadKey(credentials, only):
                self._call("key")
                self.held = {**({} if only else self.held), credentials.key_id: credentials}
            case LoadConnection(connection, fingerprint):
                self._load(connection, fingerprint)
            case ReinstallPolicies(connection_name, child):
                self._call(f"reinstall {child}")
                self._install(self.loaded[connection_name][0])
            case UnloadConnection(name):
                self._call(f"unload {name}")
                self._forget(name)
            case TerminateSa(unique_id, _, at_once):
                self._call(f"terminate {unique_id}" + (" at once" if at_once else ""))
                self.sas.pop(unique_id)
            case TerminateChild(unique_id):
                self._call(f"terminate child {unique_id}")
                self.sas = {number: _without(sa, unique_id) for number, sa in self.sas.items()}
            case UnloadKey(key_id):
                self._call(f"unload key {key_id}")
                self.held.pop(key_id)
            case UnloadAuthority(name):
                self._call(f"untrust {name}")
                self.trusted.pop(name)
            case _:
                assert_never(step)

    def _load(self, connection: Connection, fingerprint: str) -> None:
        self._call(f"load {connection.name}")
        if self.refuses_loads:
            raise CharonRefusedError("invalid value for: esp_proposals")
        self._forget(connection.name)
        self.loaded[connection.name] = (connection, fingerprint)
        self._install(connection)

    def _install(self, connection: Connection) -> None:
        for policy in policies(connection):
            self.kernel[policy.selector] = installed(policy)

    def _forget(self, name: str) -> None:
        if name in self.loaded:
            for policy in policies(self.loaded.pop(name)[0]):
                self.kernel.pop(policy.selector, None)

    def kill_charon_by_hand(self) -> None:
        """As SIGKILL: what it had is forgotten, the kernel keeps its policies."""
        self.process = None
        self.responsive, self.missed = True, 0
        self.loaded, self.trusted, self.held, self.sas = {}, {}, {}, {}

    def stop_by_signal(self) -> None:
        """As SIGSTOP."""
        assert self.process is not None
        self.process = replace(self.process, stopped=True)


def _without(sa: IkeSa, child: int) -> IkeSa:
    return replace(sa, children=tuple(one for one in sa.children if one.unique_id != child))
