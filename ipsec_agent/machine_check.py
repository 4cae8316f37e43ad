"""Whether this VM can do what a config asks for, found out without changing anything that lasts.

A pre-start may ask before the VM is closed for the first time.
"""

import asyncio
from collections.abc import Callable
from pathlib import Path

from ipsec_agent.admission import SHIPPED, refuse_unlisted
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.desired_guard import guard_of
from ipsec_agent.core.esp import dummy_sas
from ipsec_agent.core.guard_table import ruleset
from ipsec_agent.core.inside import link_names
from ipsec_agent.core.lockout import unknown_lockout, unknown_lockout_hint
from ipsec_agent.core.placement import absent_links
from ipsec_agent.core.problems.esp import esp_problems
from ipsec_agent.errors import AgentError, KernelError, StartError
from ipsec_agent.guard_status import lockouts_here
from ipsec_agent.host.charon_start import locate_program
from ipsec_agent.host.files import refuse_unfit_directory
from ipsec_agent.host.link_reading import LinkReading
from ipsec_agent.host.links import read_facts
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.preflight import esp_ability
from ipsec_agent.host.route_records import read_network
from ipsec_agent.host.saved_guard import NAME

Findings = tuple[tuple[str, ...], tuple[AgentError, ...]]
"""What a VM can do, in words; and what it cannot, each with its cause and remedy."""


def check_machine(config: Config) -> Findings:
    """Check everything, whatever the first finding is; as root."""
    checks = (_directories, _place, _links, _esp, _guard, _lockouts, _charon)
    findings = [_tried(check, config) for check in checks]
    return (
        tuple(text for good, _ in findings for text in good),
        tuple(error for _, bad in findings for error in bad),
    )


def _tried(check: Callable[[Config], Findings], config: Config) -> Findings:
    try:
        return check(config)
    except AgentError as error:
        return (), (error,)


def _directories(config: Config) -> Findings:
    """As the agent's start does, which makes those that are not there."""
    agent = config.agent
    places = [Path(agent.run_dir), Path(agent.state_dir)]
    if agent.vici_socket:
        places.append(Path(agent.vici_socket).parent)
    bad = [error for place in dict.fromkeys(places) if (error := _distrust(place)) is not None]
    return _left_behind(Path(agent.state_dir)), tuple(bad)


def _left_behind(state: Path) -> tuple[str, ...]:
    """Whether the shipped units load a guard at boot that no agent with this config keeps."""
    guard = Path(SHIPPED) / NAME
    if state == guard.parent or not guard.exists():
        return ()
    told = f"state: agent.state_dir is {state}, but the shipped units load {guard} at boot: move it"
    return (f"{told} to {state}, and name that in your units",)


def _distrust(place: Path) -> AgentError | None:
    try:
        refuse_unfit_directory(place)
    except StartError as error:
        return error
    return None


def _place(config: Config) -> Findings:
    # Without the links, so an address that only containers use may count, too.
    network = read_network()
    refuse_unlisted(config, network)
    address = config.agent.address
    if address is None or any(one.address == address for one in network.addresses):
        return (), ()
    # It may come later, so nothing is refused.
    return (f"address: agent.address is {address}, and no link of this VM has it",), ()


def _links(config: Config) -> Findings:
    """A name that no link has may be mistyped; the link may also come later."""
    if not (config.agent.uplinks or config.agent.inside):
        return (), ()
    there = link_names(read_facts(LinkReading()).links)
    return tuple(f"links: {text}" for text in absent_links(config.agent, there)), ()


def _esp(config: Config) -> Findings:
    own = (one.address for one in read_network().addresses)
    ability = esp_ability(dummy_sas(config, own))
    bad = tuple(KernelError(one.message, hint=one.hint) for one in esp_problems(ability))
    if bad:
        return (), bad
    done = (f"{trial.sa.words} over IPv{trial.sa.version}" for trial in ability.trials)
    return (f"ESP: {', '.join(done) or 'not needed, this VM does not encrypt'}",), ()


def _guard(config: Config) -> Findings:
    if config.agent.guard is GuardMode.NONE:
        return ("guard: none (agent.guard: none)",), ()
    asyncio.run(Nft().check(ruleset(guard_of(config))))
    return ("guard: its table loads",), ()


def _lockouts(config: Config) -> Findings:
    findings, unresolved = lockouts_here(config)
    bad = [finding for finding in findings if finding.refused]
    if bad:
        return (), tuple(
            StartError(one.message, hint=f"{one.hint}; or use `ipsec-agent run --force`")
            for one in bad
        )
    good = "lock-out: the config cuts off nothing that this VM needs"
    doubts = (
        f"not checked: {unknown_lockout(name)} ({unknown_lockout_hint(name)})"
        for name in unresolved
    )
    return (good + (", as far as it is known" if unresolved else ""), *doubts), ()


def _charon(config: Config) -> Findings:
    return (f"charon: {locate_program(config.agent.charon.program)}",), ()
