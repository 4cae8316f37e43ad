"""When peers were cut off, in a file for the agent that comes after this one, and for `doctor`."""

import contextlib
import json
import math
import time
from pathlib import Path

from ipsec_agent.core.clock import LATEST
from ipsec_agent.core.outages import KEPT, Memory, entry, read
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular, write_whole
from ipsec_agent.host.understood import NOT_UNDERSTOOD

NAME = "outages.json"
LARGEST = 1 << 20
"""Bytes that are read; all that is written is less."""

EACH = 60.0
"""Seconds between two writings while an outage lasts: so exactly is its end known after a crash."""


class OutageFile:
    """The file, of which an entry that cannot be read costs only itself."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._memory: Memory = ()
        self._time = -math.inf

    def read(self) -> tuple[float, Memory]:
        """When it was written, and what it says; nothing where it cannot be read."""
        found: list[Memory] = []
        try:
            with open_regular(self._path) as file:
                document = json.loads(file.read(LARGEST) or b"")
            written = float(document["written"])
            if not 0 <= written < LATEST:
                return 0.0, ()
            for one in document["outages"][:KEPT]:
                with contextlib.suppress(*NOT_UNDERSTOOD):
                    found.append(tuple(read([one])))
        except (OSError, *NOT_UNDERSTOOD):
            return 0.0, ()
        self._memory = tuple(one for ones in found for one in ones)
        return written, self._memory

    def keep(self, memory: Memory, *, at_once: bool = False) -> None:
        """Write it again where something is new, or an outage lasts.

        Args:
            at_once: also shortly after the last time.
        """
        now = time.monotonic()
        lasts = any(not one.end for one in memory)
        if memory == self._memory and not lasts:
            return
        if not at_once and now - self._time < EACH:
            return
        self._time = now
        document = {"written": time.time(), "outages": [entry(one) for one in memory]}
        # As with the faults: a full disk must not stop IPsec. It is tried again.
        with contextlib.suppress(AgentError):
            write_whole(self._path, json.dumps(document) + "\n", mode=0o600)
            self._memory = memory
