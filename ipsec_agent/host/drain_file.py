"""The file in which a drain says what it does, and the end of a drain that is under way.

What it says holds only as long as its program lives, except that IPsec has ended.
"""

import asyncio
import contextlib
import errno
import os
import signal
from pathlib import Path
from shlex import quote

import msgspec

from ipsec_agent.core.drain import Drain, Phase
from ipsec_agent.errors import StartError
from ipsec_agent.host.birth import began
from ipsec_agent.host.exhausted import remedy
from ipsec_agent.host.files import as_json, open_regular, write_whole
from ipsec_agent.host.pidfd import open_pidfd
from ipsec_agent.host.understood import NOT_UNDERSTOOD

NAME = "drain.json"

NO_DRAIN = frozenset(
    {errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EISDIR, errno.EINVAL, errno.ENXIO}
)
"""There is no file, or something that no drain has written."""

LARGEST = 1 << 20
"""Bytes that are read; all that is written is less."""

GIVES_UP = signal.SIGHUP
"""The signal at which a drain leaves charon as it is and ends. One that is already ending charon
finishes that first."""

DEADLINE = 90.0
"""Seconds within which a drain has ended after that signal."""


class DrainFile:
    """The file of one run directory.

    Attributes:
        path: where it is.
    """

    def __init__(self, run_dir: Path) -> None:
        self.path = run_dir / NAME

    def write(self, drain: Drain) -> None:
        """Say what this drain does.

        Raises:
            StartError: it cannot be written.
        """
        write_whole(self.path, f"{as_json(drain)}\n", mode=0o600)

    def remove(self) -> None:
        """Say nothing any more."""
        with contextlib.suppress(OSError):
            self.path.unlink()

    def read(self) -> Drain | None:
        """What a drain says, None where there is none, or where its program has died."""
        try:
            return self._read()
        except OSError:
            return None

    def _read(self) -> Drain | None:
        """The same.

        Raises:
            OSError: the file is there, and cannot be read now.
        """
        try:
            with open_regular(self.path) as file:
                found = msgspec.json.decode(file.read(LARGEST) or b"", type=Drain)
        except NOT_UNDERSTOOD:
            return None
        except OSError as error:
            if error.errno in NO_DRAIN:
                return None
            raise
        lives = began(found.pid) == found.started
        return found if lives or found.phase is Phase.ENDED else None

    async def end(self) -> None:
        """End a drain that is under way, and wait until it has; charon stays as it is.

        Raises:
            StartError: it does not end, or whether there is one cannot be read.
        """
        try:
            found = self._read()
        except OSError as error:
            raise StartError(
                f"cannot read {self.path}: {error.strerror}",
                hint=remedy(error, f"rm {quote(str(self.path))}, unless a drain is under way"),
            ) from error
        if found is not None and found.pid != os.getpid():
            await _end(found)
        self.remove()


async def _end(drain: Drain) -> None:
    try:
        descriptor = open_pidfd(drain.pid)
    except ProcessLookupError:
        return
    except OSError as error:
        raise StartError(
            f"cannot end `ipsec-agent drain` (pid {drain.pid}): {error.strerror}",
            hint=remedy(error, f"kill -9 {drain.pid}"),
        ) from error
    try:
        # The pid may be another's by now; the descriptor pins whoever has it.
        if began(drain.pid) != drain.started:
            return
        with contextlib.suppress(ProcessLookupError):
            signal.pidfd_send_signal(descriptor, GIVES_UP)
        async with asyncio.timeout(DEADLINE):
            await _readable(descriptor)
    except TimeoutError as error:
        raise StartError(
            f"`ipsec-agent drain` (pid {drain.pid}) does not end", hint=f"kill -9 {drain.pid}"
        ) from error
    finally:
        os.close(descriptor)


async def _readable(descriptor: int) -> None:
    """Wait until a descriptor can be read; a pidfd can once its process has ended."""
    loop, readable = asyncio.get_running_loop(), asyncio.Event()
    loop.add_reader(descriptor, readable.set)
    try:
        await readable.wait()
    finally:
        loop.remove_reader(descriptor)
