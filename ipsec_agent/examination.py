"""Reads what `doctor` judges: the running agent's status, the config, and this VM around both.

Whatever cannot be read is named, and does not keep the rest from being judged.
"""

import asyncio
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

from msgspec.structs import replace

from ipsec_agent.config_file import accepted, agent_of, load
from ipsec_agent.core.commands import DEFAULT_CONFIG
from ipsec_agent.core.config import AgentConfig, Config
from ipsec_agent.core.doctor.agent import BOSH_UNIT, GUARD_UNIT, TARGET
from ipsec_agent.core.doctor.facts import Complaint, Facts, GuardFacts
from ipsec_agent.core.doctor.holes import PACKAGES
from ipsec_agent.core.doctor.machine import OTHERS
from ipsec_agent.core.observed import CharonProcess, IkePorts, NetworkFacts
from ipsec_agent.core.outages import Memory
from ipsec_agent.errors import AgentError, ConfigError, ControlError
from ipsec_agent.guard_status import read_guard_status
from ipsec_agent.host import installed, traits
from ipsec_agent.host.clock import ClockReader
from ipsec_agent.host.control_client import NotRunningError, ask
from ipsec_agent.host.ike_ports import IkePortsReader
from ipsec_agent.host.link_reading import LinkReading
from ipsec_agent.host.links import read_facts
from ipsec_agent.host.nft import FORMS, Nft
from ipsec_agent.host.outages import NAME as NAME_OF_OUTAGES
from ipsec_agent.host.outages import OutageFile
from ipsec_agent.host.process import find_charon
from ipsec_agent.host.program import find_program
from ipsec_agent.host.saved_guard import NAME
from ipsec_agent.host.switches import SwitchesReader
from ipsec_agent.host.xfrm import open_xfrm
from ipsec_agent.machine_check import check_machine

T = TypeVar("T")
UNITS = (TARGET, GUARD_UNIT, BOSH_UNIT, *OTHERS)


def examine(given: Path | None, socket: str | None, *, root: bool) -> Facts:
    """Read everything.

    Args:
        given: the config, None for the usual one; that of a running agent counts instead, where it
            tells one.
        socket: the control socket, None for that in the config's run_dir.
        root: this process may read everything.
    """
    reading = _Reading()
    facts = _config(Facts(str(given or DEFAULT_CONFIG), root=root, now=time.time()))
    where = socket or f"{facts.agent.run_dir}/control.sock"
    facts = _asked(replace(facts, socket=where))
    facts = _of_the_agent(facts, named=given is not None)
    facts = replace(
        facts,
        network=reading.tried("this VM's links", _network, NetworkFacts()),
        units=installed.units(*UNITS),
        monit=find_program("monit") is not None,
        daemons=traits.ike_programs(_own_charon(facts.agent)),
        packages=installed.packages(*PACKAGES),
        release=installed.debian_release(),
        cpu=traits.cpu(),
        fips=traits.fips(),
        mounts=traits.mounts(),
        blocking=installed.blocking_rules() if root else (),
        replaced=traits.replaced(Path(facts.agent.run_dir) / "charon.pid"),
        clock=ClockReader(facts.config).read() if facts.config else None,
    )
    if root:
        facts = _as_root(facts, reading)
    return replace(facts, unread=tuple(reading.failed))


class _Reading:
    """Notes what could not be read."""

    def __init__(self) -> None:
        self.failed: list[Complaint] = []

    def tried(self, what: str, read: Callable[[], T], otherwise: T) -> T:
        """What is read, or something else where that fails."""
        try:
            return read()
        except AgentError as error:
            self.failed.append(Complaint(f"{what}: {error.message}", error.hint))
            return otherwise


def _asked(facts: Facts) -> Facts:
    """The facts with what the agent says, or why it says nothing though it may run."""
    try:
        return replace(facts, status=ask(facts.socket, "status")["status"])
    except NotRunningError:
        return facts
    except ControlError as error:
        return replace(facts, silent=Complaint(error.message, error.hint))


def _of_the_agent(facts: Facts, *, named: bool) -> Facts:
    """The facts with the config of the agent that runs, where one tells it."""
    told = str((facts.status or {}).get("config") or facts.path)
    if Path(told).absolute() == Path(facts.path).absolute():
        return facts
    passed_over = facts.path if named else ""
    blank = replace(facts, path=told, passed_over=passed_over, config=None, refused=None)
    return _config(replace(blank, warnings=()))


def _config(facts: Facts) -> Facts:
    """The facts with the config, or with why there is none."""
    try:
        loaded = load(Path(facts.path), outdated=accepted)
    except ConfigError as error:
        refused = Complaint(error.message, error.hint, error.complaints)
        return replace(facts, refused=refused, agent=agent_of(error))
    agent = loaded.config.agent
    return replace(facts, config=loaded.config, agent=agent, warnings=loaded.warnings)


def _network() -> NetworkFacts:
    return read_facts(LinkReading())


def _as_root(facts: Facts, reading: _Reading) -> Facts:
    """The facts with what only root may read."""
    config, agent = facts.config, facts.agent
    facts = replace(
        facts,
        guard=reading.tried("the guard", lambda: _guard(config, agent), None),
        machine=_machine(config) if config else (),
    )
    if facts.status is not None:
        # The agent has read the rest, and reports it.
        return facts
    return replace(
        facts,
        switches=SwitchesReader(lambda: 0.0).get(),
        outages=_outages(agent),
        default_blocks=reading.tried("the kernel's default policy", _default_blocks, ()),
        ike_ports=reading.tried("IKE's ports", lambda: _ike_ports(agent), None),
    )


def _machine(config: Config) -> tuple[Complaint, ...]:
    _, bad = check_machine(config)
    return tuple(Complaint(error.message, error.hint) for error in bad)


def _guard(config: Config | None, agent: AgentConfig) -> GuardFacts:
    nft, saved = Nft(Path(agent.run_dir) / FORMS), Path(agent.state_dir) / NAME
    found = asyncio.run(read_guard_status(nft, config, saved))
    return GuardFacts(found.state.value, found.saved.value, found.notes)


def _outages(agent: AgentConfig) -> Memory:
    return OutageFile(Path(agent.state_dir) / NAME_OF_OUTAGES).read()[1]


def _find_charon(agent: AgentConfig) -> CharonProcess | None:
    run_dir = Path(agent.run_dir)
    return find_charon(
        Path(agent.vici_socket or run_dir / "charon.vici"), run_dir / "strongswan.conf"
    )


def _own_charon(agent: AgentConfig) -> int:
    """The pid of the charon that the agent started, or was told to use; 0 where none runs."""
    try:
        found = _find_charon(agent)
    except AgentError:
        # Somebody else's has the agent's socket.
        return 0
    return found.pid if found and (found.ours or agent.vici_socket) else 0


def _ike_ports(agent: AgentConfig) -> IkePorts:
    """Who has them; charon goes on where the agent has ended, and has them by right."""
    charon = _find_charon(agent)
    return IkePortsReader(lambda: 0.0).get(charon if charon and charon.ours else None)


def _default_blocks() -> Any:
    async def read() -> Any:
        async with open_xfrm() as xfrm:
            return await xfrm.default_blocks()

    return asyncio.run(read())
