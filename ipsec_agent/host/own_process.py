"""This process itself: its limits, and its streams where they are closed or cannot be written.

Without anything that is slow to import.
"""

import contextlib
import errno
import io
import os
import resource
import select
import sys
from pathlib import Path
from typing import TextIO

from ipsec_agent.core.words import LINES, printable
from ipsec_agent.errors import StartError
from ipsec_agent.host.exhausted import MORE_FILES

FILES, FEWEST_FILES = 4096, 256
"""Open files that the agent asks for, and how many it needs: one for each caller of the control
socket, each netlink socket, each process watched."""


def forbid_cores() -> None:
    """Keep private keys out of core dumps, of this process and of all that it starts.

    The limit is not heeded where /proc/sys/kernel/core_pattern is a pipe; the filter is (core(5)).
    """
    with contextlib.suppress(OSError, ValueError):
        resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    with contextlib.suppress(OSError):
        Path("/proc/self/coredump_filter").write_text("0")


def allow_files() -> None:
    """Raise the limit of open files as far as whoever started this process allows it.

    Raises:
        StartError: that is too low.
    """
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FILES:
        # The unit's filter of system calls has none that change limits.
        with contextlib.suppress(OSError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (min(hard, FILES), hard))
        soft, _ = resource.getrlimit(resource.RLIMIT_NOFILE)
    if soft < FEWEST_FILES:
        raise StartError(
            f"the agent may open {soft} files only, and needs {FEWEST_FILES}",
            hint=MORE_FILES,
        )


def open_streams() -> None:
    """Put something in place of each stream that was closed before this process began.

    Else the next file that is opened would be taken for it. To write to a standard output that was
    closed still fails, so that it is told; errors that nobody wants are not.
    """
    for number, flags in enumerate((os.O_RDONLY, os.O_RDONLY, os.O_WRONLY)):
        try:
            os.fstat(number)
        except OSError:
            # It gets the lowest number that is free, which is this.
            os.open(os.devnull, flags)
    # Python has None for a stream that it found closed.
    sys.stdin = sys.stdin or os.fdopen(0, closefd=False)
    sys.stdout = sys.stdout or os.fdopen(1, "w", closefd=False)
    sys.stderr = sys.stderr or os.fdopen(2, "w", closefd=False)
    if isinstance(sys.stdout, io.TextIOWrapper):
        # A path may be no UTF-8.
        sys.stdout.reconfigure(errors="backslashreplace")


def read_by_journal() -> bool:
    """Whether the journal reads standard error, and not a file or a terminal (systemd.exec(5))."""
    try:
        found = os.fstat(2)
    except OSError:
        return False
    return os.environ.get("JOURNAL_STREAM") == f"{found.st_dev}:{found.st_ino}"


STDOUT = 1

ERROR, WARNING = 3, 4
"""Priorities of the journal (syslog(3))."""

CLEAR_LINE, CLEAR_SCREEN = "\r\x1b[K", "\x1b[H\x1b[J"
"""What may be written to a terminal before a text."""


def say(text: str, *, before: str = "") -> None:
    """Write to standard output. Whoever gave the text, no terminal obeys what is in it.

    Args:
        before: what a terminal is to do first.

    Raises:
        OSError: it cannot be written.
    """
    sys.stdout.write(before + printable(text, kept=LINES))


def complain(text: str, priority: int = ERROR, *, before: str = "") -> None:
    """Write to standard error; what cannot be written there is lost, and changes no exit code.

    Args:
        priority: of each line, where the journal reads it.
        before: what a terminal is to do first.
    """
    text = printable(text, kept=LINES)
    if read_by_journal():
        text = "".join(f"<{priority}>{line}" for line in text.splitlines(keepends=True))
    try:
        sys.stderr.write(before + text)
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def pause(seconds: float) -> None:
    """Let so many seconds pass, and look meanwhile whether anybody still reads what is written.

    Raises:
        BrokenPipeError: the reader of standard output has gone; who writes nothing just now would
            not notice.
    """
    gone = select.poll()
    gone.register(STDOUT, 0)
    if gone.poll(seconds * 1000):
        raise BrokenPipeError(errno.EPIPE, os.strerror(errno.EPIPE))


def discard(stream: TextIO) -> None:
    """Let what a stream could not write, and all that follows, go nowhere."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
