"""The file of events, which outlive the agent."""

import contextlib
import time
from pathlib import Path

import msgspec

from ipsec_agent.core.clock import LATEST
from ipsec_agent.core.events import LONGEST, MOST, Event
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import as_json, open_regular, write_whole
from ipsec_agent.host.understood import NOT_UNDERSTOOD

LARGEST = 1 << 20
"""Bytes that are read; all that is written is less."""

EACH = 10.0
"""Seconds between two writings."""


class EventFile:
    """The file; one that cannot be read costs only what it would have said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written: tuple[Event, ...] = ()
        self._at = -EACH

    def read(self) -> tuple[Event, ...]:
        """What an earlier agent has seen, the oldest first."""
        found: list[Event] = []
        with contextlib.suppress(OSError, *NOT_UNDERSTOOD):
            with open_regular(self._path) as file:
                items = msgspec.json.decode(file.read(LARGEST) or b"", type=list[msgspec.Raw])
            for one in items[-MOST:]:
                with contextlib.suppress(*NOT_UNDERSTOOD):
                    found.append(_event(one))
        self._written = tuple(found)
        return self._written

    def keep(self, events: tuple[Event, ...], *, at_once: bool = False) -> None:
        """Write it again where something is new.

        Args:
            at_once: also shortly after the last time.
        """
        now = time.monotonic()
        if events == self._written or (now - self._at < EACH and not at_once):
            return
        self._at = now
        text = as_json(events)
        # A full disk must not stop IPsec. It is tried again.
        with contextlib.suppress(AgentError):
            write_whole(self._path, text + "\n", mode=0o600)
            self._written = events


def _event(raw: msgspec.Raw) -> Event:
    """What one entry says.

    Raises:
        ValueError: or another of NOT_UNDERSTOOD: it is none of ours.
    """
    event = msgspec.json.decode(raw, type=Event)
    if not (0 <= event.since <= event.time < LATEST and 0 < event.count < LATEST):
        raise ValueError(event)
    if max(map(len, (event.text, event.subject, event.peer))) > LONGEST:
        raise ValueError(event.kind)
    return event
