"""The config in a file: read, checked, and refused with every complaint."""

import hashlib
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

from msgspec import Struct

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.baseline import Baseline
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.words import several
from ipsec_agent.errors import ConfigError
from ipsec_agent.host.files import config_warnings, read_config


class Loaded(Struct, frozen=True):
    """A config that is accepted, and the digest of the text that it was read from."""

    config: Config
    digest: str


def load_config(
    path: Path,
    *,
    warn: Callable[[str], None] = lambda _: None,
    hint: str = "",
    baseline: Baseline = Baseline.DEFAULT,
) -> Config:
    """Read and check the config, as `load` does."""
    return load(path, warn=warn, hint=hint, baseline=baseline).config


def load(
    path: Path,
    *,
    warn: Callable[[str], None] = lambda _: None,
    hint: str = "",
    baseline: Baseline = Baseline.DEFAULT,
) -> Loaded:
    """Read and check the config.

    Args:
        warn: is given each complaint about a config that is good enough.
        hint: what to say beside the complaints about one that is refused.
        baseline: whose rules it is judged by, too.

    Raises:
        ConfigError: it cannot be read, or is refused; with every complaint.
    """
    text = read_config(path)
    parsed = parse(text, file=str(path), now=datetime.now(UTC), baseline=baseline)
    complaints = [str(complaint) for complaint in (*parsed.complaints, *config_warnings(path))]
    if parsed.config is None:
        errors = sum(complaint.severity == "error" for complaint in parsed.complaints)
        raise ConfigError(
            f"{path} is refused: {several(errors, 'error')}", complaints=complaints, hint=hint
        )
    for complaint in complaints:
        warn(complaint)
    return Loaded(parsed.config, hashlib.sha256(text.encode()).hexdigest())
