"""Files of `status --json` that were collected from VMs, pipes and standard input included."""

import os
import select
import stat
import time
from pathlib import Path

from ipsec_agent.errors import AgentError

MOST = 256 * 1024 * 1024
"""Bytes of a file; the status of a VM with 1,000 peers has less than one million."""

PATIENCE = 600.0
"""Seconds within which a pipe must have ended: the VMs may be asked one after the other."""

SUFFIXES = (".json", ".jsonl", ".ndjson")

STANDARD_INPUT = "-"


def files_of(argument: str) -> tuple[str, ...]:
    """The files that an argument of the command line means: itself, or those in a directory.

    Raises:
        AgentError: a directory cannot be read, or has none.
    """
    path = Path(argument)
    if argument == STANDARD_INPUT:
        return (argument,)
    try:
        if not path.is_dir():
            return (argument,)
        found = sorted(str(one) for one in path.iterdir() if one.suffix in SUFFIXES)
    except OSError as error:
        raise AgentError(f"cannot be read: {error.strerror}") from error
    if not found:
        raise AgentError(f"has no file named *{', *'.join(SUFFIXES)}", hint="give the files' names")
    return tuple(found)


def content(file: str) -> bytes:
    """All bytes of a file, a pipe or standard input.

    Raises:
        AgentError: it cannot be read, is too large, or does not end in time.
    """
    try:
        if file == STANDARD_INPUT:
            return _received(0)
        descriptor = os.open(file, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            kind = os.fstat(descriptor).st_mode
            if not (stat.S_ISREG(kind) or stat.S_ISFIFO(kind)):
                raise AgentError("is neither a file nor a pipe")
            return _received(descriptor)
        finally:
            os.close(descriptor)
    except OSError as error:
        raise AgentError(f"cannot be read: {error.strerror}") from error


def _received(descriptor: int) -> bytes:
    parts: list[bytes] = []
    size = 0
    # A file at once, so that it is in memory once.
    room = min(max(os.fstat(descriptor).st_size + 1, 1 << 20), MOST + 1)
    end = time.monotonic() + PATIENCE
    while size <= MOST:
        if not select.select([descriptor], [], [], max(0.0, end - time.monotonic()))[0]:
            raise AgentError(f"did not end within {PATIENCE:g} s")
        part = os.read(descriptor, room)
        if not part:
            return parts[0] if len(parts) == 1 else b"".join(parts)
        parts.append(part)
        size += len(part)
    raise AgentError(f"is larger than {MOST >> 20} MiB")
