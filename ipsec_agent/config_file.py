"""The config in a file: read, checked, and refused with every complaint.

The parser and what it needs take 14 MiB, so they are imported only by the process that reads one:
of a daemon that is a child, at the start, at a reload and where the file has changed.
"""

import hashlib
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, Baseline, Config
from ipsec_agent.core.renewal import CLOCK_FIRST
from ipsec_agent.core.words import several
from ipsec_agent.errors import ConfigError
from ipsec_agent.host.child import Child
from ipsec_agent.host.clock import clock_doubt
from ipsec_agent.host.files import config_warnings, read_config

UNCHANGED = "nothing was changed"
"""What the agent says beside a config that is refused."""


class RefusedError(ConfigError):
    """A config was read and refused; it still says where things are.

    Attributes:
        agent: its section `agent:`, also where that alone is YAML; the defaults where it cannot be
            read.
    """

    def __init__(
        self, message: str, *, complaints: Sequence[str], hint: str, agent: AgentConfig
    ) -> None:
        super().__init__(message, complaints=complaints, hint=hint)
        self.agent = agent

    def __reduce__(self) -> tuple[Any, ...]:
        """A child that read the config passes it on."""
        made = partial(
            RefusedError,
            self.message,
            complaints=self.complaints,
            hint=self.hint,
            agent=self.agent,
        )
        return made, ()


def agent_of(error: ConfigError) -> AgentConfig:
    """Where things are by a config that is not taken; the usual places where it cannot be read."""
    return error.agent if isinstance(error, RefusedError) else AgentConfig()


class Loaded(Struct, frozen=True):
    """A config that is accepted.

    Attributes:
        digest: of the text that it was read from.
        warnings: the complaints about it, which is good enough.
    """

    config: Config
    digest: str
    warnings: tuple[str, ...] = ()


def refused(_config: Config) -> bool:
    """No config is taken that has a certificate which does not hold now."""
    return False


def accepted(_config: Config) -> bool:
    """One is taken all the same: the guard and the policies that protect need no certificate."""
    return True


def load_config(
    path: Path,
    *,
    warn: Callable[[str], None] = lambda _: None,
    hint: str = "",
    baseline: Baseline = Baseline.DEFAULT,
    outdated: Callable[[Config], bool] = refused,
) -> Config:
    """Read and check the config, as `load` does.

    Args:
        warn: is given each complaint about a config that is good enough.
        hint: as for `load`.
        baseline: likewise.
        outdated: likewise.
    """
    loaded = load(path, hint=hint, baseline=baseline, outdated=outdated)
    for complaint in loaded.warnings:
        warn(complaint)
    return loaded.config


def load(
    path: Path,
    *,
    hint: str = "",
    baseline: Baseline = Baseline.DEFAULT,
    known: Loaded | None = None,
    outdated: Callable[[Config], bool] = refused,
    apart: bool = False,
) -> Loaded:
    """Read and check the config.

    Args:
        hint: what to say beside the complaints about one that is refused.
        baseline: whose rules it is judged by, too.
        known: a config that is still good; returned where the file has the same text.
        outdated: whether one with a certificate that does not hold now is taken, with a warning.
        apart: have a child process do it, so that the parser does not stay in this one; it blocks.

    Raises:
        ConfigError: it cannot be read, or is refused; with every complaint.
    """
    text, now = read_config(path), datetime.now(UTC)
    digest = hashlib.sha256(text.encode()).hexdigest()
    if known is not None and known.digest == digest:
        return known
    if apart:
        work = partial(load, path, hint=hint, baseline=baseline, outdated=outdated)
        return Child(work).result()
    from ipsec_agent.core.manifest.parser import parse  # noqa: PLC0415 - see above
    from ipsec_agent.core.manifest.pem import has_key  # noqa: PLC0415 - likewise
    from ipsec_agent.core.manifest.salvage import salvaged  # noqa: PLC0415 - likewise

    parsed = parse(text, file=str(path), now=now, baseline=baseline)
    config, complaints = parsed.config, parsed.complaints
    if parsed.outdated is not None:
        doubt = clock_doubt(parsed.outdated, now.timestamp())
        if doubt:
            complaints = tuple(
                replace(one, remedy=CLOCK_FIRST) if one.dated else one for one in complaints
            )
        if outdated(parsed.outdated):
            config = parsed.outdated
            complaints = tuple(one.overlooked for one in complaints)
        elif doubt:
            hint = "; ".join(filter(None, (f"{doubt}: set the clock, if it is wrong", hint)))
    if has_key(text):
        complaints = (*complaints, *config_warnings(path))
    said = tuple(map(str, complaints))
    if config is None:
        errors = sum(complaint.severity == "error" for complaint in complaints)
        raise RefusedError(
            f"{path} is refused: {several(errors, 'error')}",
            complaints=said,
            hint=hint,
            agent=parsed.agent or salvaged(text, now) or AgentConfig(),
        )
    return Loaded(config, digest, said)
