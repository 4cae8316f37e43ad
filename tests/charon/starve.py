"""A charon that wants to work and gets no CPU."""

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.charon.nodes import PYTHON

LONGEST = 120
"""Seconds that the program spins at most: nobody may be there any more who would end it."""

SPIN = f"""
import os, sys, time
end, parent = time.monotonic() + {LONGEST}, os.getppid()
cpu = int(sys.argv[1])
os.sched_setaffinity(0, {{cpu}})
os.setpriority(os.PRIO_PROCESS, 0, -20)
try:
    with open("/proc/self/autogroup", "w") as file:
        file.write("-20")
except OSError:
    pass
while time.monotonic() < end and os.getppid() == parent:
    pass
"""


@contextlib.contextmanager
def starved(pid: int) -> Iterator[None]:
    """Every thread of a process may only run when a program that never rests leaves it a CPU."""
    cpus = os.sched_getaffinity(0)
    with subprocess.Popen([PYTHON, "-c", SPIN, str(min(cpus))], start_new_session=True) as spinner:
        try:
            # Each session has a share of its own (sched(7), autogroups).
            _share(pid, "19")
            for thread in _threads(pid):
                os.sched_setaffinity(thread, {min(cpus)})
                os.sched_setscheduler(thread, os.SCHED_IDLE, os.sched_param(0))
            yield
        finally:
            spinner.kill()
            _share(pid, "0")
            for thread in _threads(pid):
                os.sched_setscheduler(thread, os.SCHED_OTHER, os.sched_param(0))
                os.sched_setaffinity(thread, cpus)


def _share(pid: int, nice: str) -> None:
    # There is none where the kernel has no autogroups, and the weights of threads decide.
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/autogroup").write_text(nice)


def _threads(pid: int) -> list[int]:
    with contextlib.suppress(FileNotFoundError):
        return [int(path.name) for path in Path(f"/proc/{pid}/task").iterdir()]
    return []
