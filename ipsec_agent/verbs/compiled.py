"""A config for a verb: read, checked, and refused with every complaint."""

from datetime import UTC, datetime
from pathlib import Path

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.words import several
from ipsec_agent.errors import ConfigError
from ipsec_agent.host.files import read_config


def compiled(path: str) -> Config:
    """The config in a file.

    Raises:
        ConfigError: it cannot be read, or is refused.
    """
    parsed = parse(read_config(Path(path)), file=path, now=datetime.now(UTC))
    if parsed.config is None:
        errors = sum(complaint.severity == "error" for complaint in parsed.complaints)
        raise ConfigError(
            f"{path} is refused: {several(errors, 'error')}",
            complaints=[str(complaint) for complaint in parsed.complaints],
        )
    return parsed.config
