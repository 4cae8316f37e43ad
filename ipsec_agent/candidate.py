"""The config that a reload would take: read and judged; nothing is touched."""

import asyncio
from datetime import UTC, datetime
from pathlib import Path

import structlog

from ipsec_agent.admission import refuse_impossible, refuse_lockout, refuse_unlisted
from ipsec_agent.config_file import UNCHANGED, Loaded, load
from ipsec_agent.core.config import Config
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.outdated import no_worse
from ipsec_agent.core.status import Snapshot
from ipsec_agent.errors import ConfigError
from ipsec_agent.host.essential_addresses import read_essential_addresses
from ipsec_agent.machine import Machine


async def candidate(
    path: Path,
    in_force: Config,
    machine: Machine,
    snapshot: Snapshot | None,
    *,
    force: bool,
) -> tuple[Loaded, EssentialAddresses]:
    """The config as it is on disk, and what this VM cannot do without.

    Args:
        snapshot: of the newest pass.
        force: the agent was started to enforce even a config that cuts this VM off.

    Raises:
        AgentError: it is refused.
    """
    now = datetime.now(UTC)

    def worsens_nothing(new: Config) -> bool:
        return no_worse(new.certificates, in_force.certificates, now)

    loaded = warned(
        await asyncio.to_thread(load, path, hint=UNCHANGED, outdated=worsens_nothing, apart=True)
    )
    config, before = loaded.config, in_force.agent
    if (config.agent.run_dir, config.agent.vici_socket) != (before.run_dir, before.vici_socket):
        raise ConfigError(
            "agent.run_dir and agent.vici_socket cannot change while the agent runs",
            hint="stop the agent, change them, and start it",
        )
    network = await machine.network()
    refuse_unlisted(config, network, in_force)
    refuse_impossible(config, in_force, snapshot)
    # Who reloads may sit anywhere: no session of his is looked for.
    essential = await asyncio.to_thread(read_essential_addresses, {})
    if not force:
        refuse_lockout(config, network, essential)
    return loaded, essential


def warned(loaded: Loaded) -> Loaded:
    """The same; the log has its warnings."""
    for complaint in loaded.warnings:
        structlog.get_logger("config").warning("config", complaint=complaint)
    return loaded
