"""Whether a config may be enforced on this VM, checked before anything is touched."""

from datetime import UTC, datetime
from pathlib import Path

import structlog

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired_guard import lockouts
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.surroundings import Surroundings
from ipsec_agent.core.words import several
from ipsec_agent.errors import ConfigError, StartError
from ipsec_agent.host.files import config_warnings, read_config


def load_config(path: Path) -> Config:
    """Read and check the config.

    Raises:
        ConfigError: with every complaint.
    """
    parsed = parse(read_config(path), file=str(path), now=datetime.now(UTC))
    if parsed.config is None:
        errors = sum(complaint.severity == "error" for complaint in parsed.complaints)
        raise ConfigError(
            f"the config {path} is refused: {several(errors, 'error')}",
            complaints=[str(complaint) for complaint in parsed.complaints],
            hint="nothing was changed",
        )
    log = structlog.get_logger("config")
    for complaint in (*parsed.complaints, *config_warnings(path)):
        log.warning("config", complaint=str(complaint))
    return parsed.config


def refuse_lockout(config: Config, network: NetworkFacts, surroundings: Surroundings) -> None:
    """Refuse a config that would cut this VM off from what it cannot do without.

    Raises:
        StartError: it would; the message names each address and the line to add.
    """
    own = tuple(one.address for one in network.addresses)
    found = [
        finding
        for finding in lockouts(config, own, network.gateways, surroundings)
        if finding.refused
    ]
    if found:
        raise StartError(
            "the config would cut this VM off: " + "; ".join(finding.message for finding in found),
            hint="; ".join(finding.hint for finding in found) + "; or use --force",
        )
