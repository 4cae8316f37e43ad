"""A charon that does not answer: for how long, and whether it works meanwhile."""

import time

from msgspec import Struct

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.host.process import Work, work

WORKING = 0.5
"""Threads of charon's that must on average run, or wait for a CPU, for it to count as working: one
of a charon that is at work does all the time, and one that hangs wakes for timers and events."""


class Silence(Struct):
    """What is known since charon answered last.

    Attributes:
        missed: deadlines that it let pass.
        idle: how many of the last ones in a row it did nothing in.
        seconds: how long they were, by the clock.
        glimpse: when it was last looked at, and how much it had worked until then.
    """

    missed: int = 0
    idle: int = 0
    seconds: float = 0.0
    glimpse: tuple[float, Work] | None = None

    def watch(self, process: CharonProcess) -> None:
        """Begin to watch whether it works; to look costs more than to ask one that is well."""
        if self.glimpse is None:
            self.glimpse = (time.monotonic(), work(process.pid))

    def missed_deadline(self, process: CharonProcess, took: float) -> None:
        """Count a deadline that charon missed, which took so many seconds."""
        now, done = time.monotonic(), work(process.pid)
        since, before = self.glimpse or (now, done)
        works = now > since and done.since(before, now - since, WORKING)
        self.missed += 1
        self.idle = 0 if works else self.idle + 1
        self.seconds += took
        self.glimpse = (now, done)
