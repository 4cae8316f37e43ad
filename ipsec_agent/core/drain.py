"""The gentle shutdown: for whom IPsec waits, for how long, and the words for it."""

import enum
import math
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import Any

from msgspec import Struct

from ipsec_agent.core.words import printable, several

QUIET = 5.0
"""Seconds without anybody after which the wait is over where BOSH runs jobs: their post-stop
scripts begin a moment after the last of them has exited."""

SLACK = 2.0
"""Seconds by which a process may seem to be younger than what names it: the kernel tells the time
of its own start by the second."""

OURS = frozenset({"ipsec", "ipsec-agent", "ipsec-health"})
"""Jobs that are IPsec itself."""

MANAGERS = frozenset({"monit", "bosh-agent"})
"""Programs that start and stop the jobs, and outlive them."""

MOST_NAMED, LONGEST_NAME = 10, 100
"""Jobs that a sentence names, and the characters of each name."""


class Phase(enum.StrEnum):
    """How far a drain is. That it has ended IPsec is told until the agent's next start."""

    WAITING = "waiting"
    ENDING = "ending"
    ENDED = "ended"


class Job(Struct, frozen=True):
    """A process of another job."""

    name: str
    pid: int


class Drain(Struct, frozen=True):
    """A drain as its file tells it. Times are seconds since the epoch.

    Attributes:
        pid: of the program that drains.
        started: when that began, in the kernel's clock ticks since the boot.
        since: when the drain began.
        deadline: when it ends IPsec, whoever still runs.
        waits: for whom it waits; later, for whom it did not wait.
    """

    pid: int
    started: int
    phase: Phase
    since: float
    deadline: float
    waits: tuple[Job, ...] = ()

    @property
    def holds_charon(self) -> bool:
        """Whether charon is ended by it, and so nobody else's to start."""
        return self.phase is not Phase.WAITING


class Claim(Struct, frozen=True):
    """What says that a job runs.

    Attributes:
        written: when it was said, seconds since the epoch.
        born: when the process began, where that is known.
    """

    name: str
    pid: int
    written: float
    born: float | None = None


class Process(Struct, frozen=True):
    """A process that lives.

    Attributes:
        born: when it began, seconds since the epoch.
        program: the kernel's name of it.
    """

    born: float
    program: str


def running(
    claims: Iterable[Claim], processes: Mapping[int, Process], spared: AbstractSet[int]
) -> tuple[Claim, ...]:
    """The jobs that run, each process once, with its birth; sorted by name.

    Whoever has the pid now, but is younger than what was said of it, is somebody else.

    Args:
        processes: those of the claims' pids that live.
        spared: pids for which nobody waits.
    """
    found: dict[int, Claim] = {}
    for claim in claims:
        process = processes.get(claim.pid)
        if (
            process is not None
            and claim.pid not in found
            and claim.pid not in spared
            and process.program not in MANAGERS
            and claim.name.partition("/")[0] not in OURS
            and _is_meant(claim, process)
        ):
            found[claim.pid] = Claim(claim.name, claim.pid, claim.written, process.born)
    return tuple(sorted(found.values(), key=lambda claim: (claim.name, claim.pid)))


def _is_meant(claim: Claim, process: Process) -> bool:
    if claim.born is not None:
        return abs(process.born - claim.born) <= SLACK
    return process.born <= claim.written + SLACK


class Wait(Struct, frozen=True):
    """A wait for other jobs; times are seconds of one clock.

    Attributes:
        deadline: when it is over, whoever still runs.
        quiet: seconds without anybody after which it is over.
        jobs: who ran at the last look; None before the first.
        alone: since when nobody runs.
    """

    deadline: float
    quiet: float = 0.0
    jobs: tuple[Job, ...] | None = None
    alone: float = math.inf

    def looked(self, jobs: tuple[Job, ...], now: float) -> "Wait":
        """The wait after another look."""
        alone = math.inf if jobs else min(self.alone, now)
        return Wait(self.deadline, self.quiet, jobs, alone)

    def over(self, now: float) -> bool:
        """Whether nobody is waited for any more."""
        return now >= self.deadline or now - self.alone >= self.quiet

    def left(self, now: float) -> float:
        """Seconds until the deadline."""
        return max(0.0, self.deadline - now)


def names(jobs: Iterable[Job]) -> str:
    """Jobs in words, such as `nfs_mounter (pid 12) and redis (pid 13)`."""
    every = tuple(jobs)
    said = [f"{shown(job.name)} (pid {job.pid})" for job in every[:MOST_NAMED]]
    if len(every) > MOST_NAMED:
        said.append(f"{len(every) - MOST_NAMED} more")
    *first, last = said or ["nobody"]
    return f"{', '.join(first)} and {last}" if first else last


def shown(name: str) -> str:
    """The name of a job as a terminal may show it: a file may be called anything."""
    return printable(name[:LONGEST_NAME])


def waiting(jobs: tuple[Job, ...], left: float) -> str:
    """What a drain that waits does, as a sentence without its subject."""
    if not jobs:
        return "waits for no other job any more"
    return f"waits for {names(jobs)}, for {several(math.ceil(left), 'second')} at the most"


def sentence(drain: Drain, now: float) -> str:
    """What a drain does now, or has done."""
    if drain.phase is Phase.WAITING:
        return f"IPsec is draining: it {waiting(drain.waits, max(0.0, drain.deadline - now))}"
    without = f"; it did not wait for {names(drain.waits)}" if drain.waits else ""
    if drain.phase is Phase.ENDING:
        return f"IPsec is draining: charon is ending{without}"
    return f"a drain has ended IPsec, and the guard stays{without}"


def entry(drain: Drain, now: float) -> dict[str, Any]:
    """A drain as the status has it."""
    return {
        "phase": drain.phase.value,
        "since": drain.since,
        "deadline": drain.deadline,
        "waits": [{"name": job.name, "pid": job.pid} for job in drain.waits],
        "says": sentence(drain, now),
    }
