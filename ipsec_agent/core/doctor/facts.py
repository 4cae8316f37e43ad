"""What `doctor` has read of this VM, with and without a running agent, as frozen records."""

from collections.abc import Mapping
from functools import cached_property
from types import MappingProxyType
from typing import Any

from msgspec import Struct, field

from ipsec_agent.core.clock import ClockFacts
from ipsec_agent.core.commands import DEFAULT_SOCKET
from ipsec_agent.core.config import AgentConfig, Config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.model import Address, Desired, Direction
from ipsec_agent.core.observed import IkePorts, NetworkFacts, Observed
from ipsec_agent.core.outages import Outage
from ipsec_agent.core.placement import Placement, place
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.switch import Switch
from ipsec_agent.errors import ConfigError


class Finding(Struct, frozen=True):
    """Something that is wrong, or that an operator should know.

    Attributes:
        check: name of the check, or the code of a problem.
        command: exactly what to type next.
        hint: more than that, where it needs to be said.
    """

    check: str
    severity: Severity
    message: str
    command: str
    hint: str = ""


class Complaint(Struct, frozen=True):
    """What is wrong, and what to do; `lines` are those of a config."""

    message: str
    hint: str
    lines: tuple[str, ...] = ()


class GuardFacts(Struct, frozen=True):
    """The guard as `guard status` says it.

    Attributes:
        state: up, missing, altered, closed.
        saved: good, missing, or does not load.
    """

    state: str
    saved: str
    notes: tuple[str, ...] = ()


class Unit(Struct, frozen=True):
    """A unit of systemd's that is installed."""

    name: str
    enabled: bool
    active: bool


class Mount(Struct, frozen=True):
    """A file system of another machine's."""

    target: str
    kind: str
    server: Address


class Cpu(Struct, frozen=True):
    """What the CPU can do.

    Attributes:
        flags: as /proc/cpuinfo has them.
        drivers: names of the algorithms that the kernel has loaded.
    """

    machine: str = "x86_64"
    flags: frozenset[str] = frozenset()
    drivers: frozenset[str] = frozenset()


class Facts(Struct, frozen=True, dict=True):
    """All that was read; what could not be read is as if it were well, and is in `unread`.

    Attributes:
        path: of the config.
        passed_over: path of another one that was named, since the running agent has this one.
        socket: the control socket of the agent.
        agent: where things are by the config, also by one that is refused.
        refused: why the config is not valid, None where it is.
        warnings: complaints about it, which is good enough.
        status: of the running agent, None where none answers.
        silent: why an agent that may run did not answer, None where it did, or none runs.
        root: this process may read everything.
        machine: what `check --machine` finds.
        guard: None where it was not read.
        units: None without systemd.
        monit: it is installed.
        daemons: IKE programs of others that run, each name and pid.
        packages: version of each package of Debian's that matters.
        replaced: pid of the charon that runs, if its files have been replaced since; else 0.
        release: of Debian, 0 where it is another system.
        fips: the kernel is in FIPS mode.
        outages: of peers, as an agent that does not run any more has left them.
        blocking: rules of others that drop or redirect what IPsec needs.
    """

    path: str
    config: Config | None = None
    refused: Complaint | None = None
    warnings: tuple[str, ...] = ()
    status: Mapping[str, Any] | None = None
    silent: Complaint | None = None
    root: bool = True
    machine: tuple[Complaint, ...] = ()
    guard: GuardFacts | None = None
    network: NetworkFacts = field(default_factory=NetworkFacts)
    units: tuple[Unit, ...] | None = None
    monit: bool = False
    daemons: tuple[tuple[str, int], ...] = ()
    packages: Mapping[str, str] = MappingProxyType({})
    replaced: int = 0
    release: int = 0
    cpu: Cpu = Cpu()
    fips: bool = False
    mounts: tuple[Mount, ...] = ()
    blocking: tuple[str, ...] = ()
    clock: ClockFacts | None = None
    switches: tuple[Switch, ...] = ()
    default_blocks: tuple[Direction, ...] = ()
    ike_ports: IkePorts | None = None
    outages: tuple[Outage, ...] = ()
    unread: tuple[Complaint, ...] = ()
    now: float = 0.0
    passed_over: str = ""
    socket: str = DEFAULT_SOCKET
    agent: AgentConfig = AgentConfig()

    @cached_property
    def placement(self) -> Placement | None:
        """This VM's place by the config, None where that is not known."""
        if self.config is None:
            return None
        try:
            return place(self.config.agent, Promise.of(self.config), self.network)
        except ConfigError:
            return None

    @cached_property
    def wish(self) -> Desired | None:
        """What an agent would make of it."""
        placement = self.placement
        if self.config is None or placement is None:
            return None
        try:
            return desired(self.config, placement)
        except ConfigError:
            return None

    @property
    def observed(self) -> Observed:
        """What a pass would have read of the same, without charon."""
        return Observed(
            network=self.network,
            switches=self.switches,
            default_blocks=self.default_blocks,
            ike_ports=self.ike_ports,
            clock=self.clock,
            time=self.now,
        )
