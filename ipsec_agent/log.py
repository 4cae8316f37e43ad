"""The agent's own log: one JSON line an event on stderr, or plain text on a terminal."""

import contextlib
import os
import sys
from typing import TextIO, cast

import structlog


class _Lossy:
    """stderr, but that what cannot be written is lost: a full disk must not end the agent."""

    def write(self, text: str) -> None:
        """Write a line."""
        # At once and unbuffered: what a buffer keeps after an error it writes before the next line.
        with contextlib.suppress(OSError):
            os.write(sys.stderr.fileno(), text.encode(errors="backslashreplace"))

    def flush(self) -> None:
        """Nothing is kept back."""


def set_up() -> None:
    """Configure structlog for the process."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer()
        if sys.stderr.isatty()
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Lossy())),
        cache_logger_on_first_use=True,
    )
