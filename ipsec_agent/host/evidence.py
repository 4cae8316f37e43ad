"""What other programs and files say of this VM, and the archive that it is put into.

Everything has a deadline and a limit, so that a VM on which something hangs gives what it can.
"""

import contextlib
import io
import os
import signal
import subprocess
import tarfile
import tempfile
from collections.abc import Iterable
from pathlib import Path
from typing import IO

from msgspec import Struct

from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular
from ipsec_agent.host.program import find_program

MOST = 4 << 20
"""Bytes that are kept of an output or a file: the last ones."""

ENDING = 1.0
"""Seconds that a program which was killed may take to be gone."""


class Outcome(Struct, frozen=True):
    """What came of a program.

    Attributes:
        text: all that it wrote, complaints included.
        fault: how it failed, "" where it did not.
    """

    text: str
    fault: str = ""


def said(command: tuple[str, ...], deadline: float) -> Outcome:
    """What a program writes until it ends, or is killed after so many seconds.

    Raises:
        AgentError: it is not installed, or cannot be started.
    """
    path = find_program(command[0])
    if path is None:
        raise AgentError(f"{command[0]} is not installed")
    with tempfile.TemporaryFile() as output:
        try:
            # A session of its own: what it has started ends with it.
            process = subprocess.Popen(  # noqa: S603 - a list, without a shell
                (path, *command[1:]),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env={**os.environ, "LC_ALL": "C", "NO_COLOR": "1"},
                start_new_session=True,
            )
        except OSError as error:
            raise AgentError(f"{path}: {error.strerror}") from error
        code = _ended(process, deadline)
        text = _last(output)
    if code is None:
        return Outcome(text, f"did not end within {deadline:.0f} s")
    return Outcome(text, f"ended with {code}" if code else "")


def _ended(process: subprocess.Popen[bytes], deadline: float) -> int | None:
    """The exit code; None where it had to be killed."""
    try:
        return process.wait(deadline)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        # One that the kernel holds does not end even so.
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(ENDING)
        return None


def tail(path: Path) -> str:
    """The end of a file.

    Raises:
        AgentError: it cannot be read.
    """
    try:
        with open_regular(path) as file:
            # A file of /proc has no size, and no end to go to.
            whole = not os.fstat(file.fileno()).st_size
            return _text(file.read(MOST)) if whole else _last(file)
    except OSError as error:
        raise AgentError(f"{path}: {error.strerror}") from error


def _last(file: IO[bytes]) -> str:
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - MOST, 0))
    cut = f"(the first {size - MOST} bytes are left out)\n" if size > MOST else ""
    return cut + _text(file.read(MOST))


def _text(raw: bytes | None) -> str:
    return (raw or b"").decode(errors="replace")


def write_archive(path: Path, folder: str, texts: Iterable[tuple[str, str]], now: float) -> None:
    """Write texts as a tar.gz that only its owner may read; nothing that is there is overwritten.

    Raises:
        AgentError: it cannot be written, or is there.
    """
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    except FileExistsError as error:
        raise AgentError(f"{path} is there", hint="name another file, or remove it") from error
    except OSError as error:
        raise AgentError(
            f"cannot write {path}: {error.strerror}", hint="name a file that you may write"
        ) from error
    try:
        with os.fdopen(descriptor, "wb") as file, tarfile.open(fileobj=file, mode="w:gz") as made:
            for name, text in texts:
                raw = text.encode(errors="replace")
                entry = tarfile.TarInfo(f"{folder}/{name}")
                entry.size, entry.mtime, entry.mode = len(raw), int(now), 0o600
                made.addfile(entry, io.BytesIO(raw))
    except BaseException as error:
        # Half an archive helps nobody.
        path.unlink(missing_ok=True)
        if isinstance(error, OSError):
            raise AgentError(f"cannot write {path}: {error.strerror}") from error
        raise
