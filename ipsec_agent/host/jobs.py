"""The other jobs of this VM: which of their processes run.

BOSH and its jobs leave pid files; monit knows some more. A process that was seen once is watched
until it ends, since a job may remove its pid file before that.
"""

import contextlib
import itertools
import os
import re
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

import psutil
from msgspec import Struct

from ipsec_agent.core.drain import Claim, Job, Process, running
from ipsec_agent.host.files import open_regular
from ipsec_agent.host.monit import PORT, monit_claims

VCAP = Path("/var/vcap")
"""Where BOSH has everything."""

PID_FILES = ("sys/run/*/*.pid", "sys/run/bpm/*/*.pid")
"""Below it: those of jobs, and those that bpm writes for jobs."""

LONGEST_PID = 32
"""Bytes of a pid file that are read."""

MOST_FILES = 1000
"""Pid files that are looked at."""

ASK_MONIT = 5.0
"""Seconds between two questions to monit."""


class Places(Struct, frozen=True):
    """Where traces of jobs are looked for."""

    vcap: Path = VCAP
    monit_port: int = PORT

    @property
    def jobs(self) -> Path:
        """The jobs that BOSH has put on this VM; not there where BOSH has none."""
        return self.vcap / "jobs"


class Jobs:
    """The other jobs, look after look.

    Args:
        own: pid files of processes for which nobody waits.
    """

    def __init__(self, places: Places, own: Iterable[Path] = ()) -> None:
        self._places = places
        self._own = tuple(own)
        self._known: tuple[Claim, ...] = ()
        self._by_monit: tuple[Claim, ...] = ()
        self._asked = -ASK_MONIT
        script = re.escape(str(places.jobs)) + r"/([^/]+)/bin/post-stop"
        self._post_stop = re.compile(script)

    def look(self) -> tuple[Job, ...]:
        """Those that run now. What cannot be read is left out."""
        claims = (*self._known, *self._pid_files(), *self._monit(), *self._post_stops())
        spared = {os.getpid()}
        for path in self._own:
            with contextlib.suppress(OSError, ValueError):
                spared.add(_pid_of(path)[0])
        processes = {pid: found for pid in {it.pid for it in claims} if (found := _process(pid))}
        self._known = running(claims, processes, spared)
        return tuple(Job(claim.name, claim.pid) for claim in self._known)

    def _pid_files(self) -> Iterator[Claim]:
        for pattern in PID_FILES:
            for path in itertools.islice(self._places.vcap.glob(pattern), MOST_FILES):
                with contextlib.suppress(OSError, ValueError):
                    yield Claim(_name(path), *_pid_of(path))

    def _monit(self) -> tuple[Claim, ...]:
        now = time.monotonic()
        if now - self._asked >= ASK_MONIT:
            self._asked = now
            self._by_monit = monit_claims(
                self._places.vcap / "monit/monit.user", self._places.monit_port
            )
        return self._by_monit

    def _post_stops(self) -> Iterator[Claim]:
        """The scripts that BOSH runs once all jobs have stopped."""
        if not self._places.jobs.is_dir():
            return
        for process in psutil.process_iter(["cmdline", "create_time"]):
            # A script is an argument of its interpreter.
            for word in (process.info["cmdline"] or ())[:4]:
                if found := self._post_stop.fullmatch(word):
                    born = process.info["create_time"]
                    name = _told(f"{found[1]}/post-stop")
                    yield Claim(name, process.pid, born, born)


def _name(path: Path) -> str:
    """`job`, or `job/process` of one with several."""
    job = path.parent.name
    return _told(job if path.stem == job else f"{job}/{path.stem}")


def _told(name: str) -> str:
    """A name as it can be written: users choose them, and need not write UTF-8."""
    return os.fsencode(name).decode(errors="replace")


def _pid_of(path: Path) -> tuple[int, float]:
    """The pid in a file, and when that was written.

    Raises:
        OSError: it cannot be read.
        ValueError: there is no pid in it.
    """
    with open_regular(path) as file:
        pid = int(((file.read(LONGEST_PID) or b"").split() or [b""])[0])
        written = os.fstat(file.fileno()).st_mtime
    if pid <= 0:
        raise ValueError(path)
    return pid, written


def _process(pid: int) -> Process | None:
    """A process that lives; None where it has ended, or is of somebody who hides it."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            if process.status() in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                return None
            return Process(process.create_time(), process.name())
    except (psutil.Error, OverflowError):
        return None
