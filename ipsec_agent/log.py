"""The agent's own log: one JSON line an event on stderr, or plain text on a terminal.

Where the journal reads stderr, each line begins with its priority (sd-daemon(3)).
"""

import contextlib
import os
import sys
from contextvars import ContextVar
from typing import Any, TextIO, cast

import structlog

from ipsec_agent.core.commands import About
from ipsec_agent.core.words import LINES, printable


class _Lossy:
    """stderr, but that what cannot be written is lost: a full disk must not end the agent."""

    def write(self, text: str) -> None:
        """Write a line."""
        # At once and unbuffered: what a buffer keeps after an error it writes before the next line.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Nothing is kept back."""


PRIORITIES = {"debug": 7, "info": 6, "warning": 4, "error": 3, "critical": 2}
"""syslog(3)'s, by the names of structlog's levels."""


ABOUT: ContextVar[About] = ContextVar("about", default=About())  # noqa: B039 - it is frozen
"""The agent of this process, whose config and socket commands in the log carry."""

WITH_COMMANDS = ("message", "hint")


def set_up(*, journal: bool = False) -> None:
    """Configure structlog for the process.

    Args:
        journal: whether the journal reads stderr.
    """
    renderer: structlog.typing.Processor = (
        _shown_by(structlog.dev.ConsoleRenderer())
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _repeatable,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _prioritized(renderer) if journal else renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lossy())),
        cache_logger_on_first_use=True,
    )


def _shown_by(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    """The renderer, given only texts that no terminal obeys; of all else it shows repr."""

    def render(logger: Any, name: str, event: structlog.typing.EventDict) -> Any:
        for key, value in event.items():
            if isinstance(value, str):
                event[key] = printable(value, kept=LINES)
        return renderer(logger, name, event)

    return render


def _repeatable(
    _logger: object, _name: str, event: structlog.typing.EventDict
) -> structlog.typing.EventDict:
    """Commands work for the agent that logs."""
    about = ABOUT.get()
    event.update({key: about.text(event[key]) for key in WITH_COMMANDS if event.get(key)})
    return event


def _prioritized(renderer: structlog.typing.Processor) -> structlog.typing.Processor:
    def render(logger: Any, name: str, event: structlog.typing.EventDict) -> str:
        priority = PRIORITIES.get(event["level"], PRIORITIES["info"])
        return f"<{priority}>{renderer(logger, name, event)!s}"

    return render
