"""Files: the config is read, files of ours are written whole, one agent holds a run directory."""

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from ipsec_agent.errors import ConfigError, StartError

MAX_CONFIG = 4 * 1024 * 1024
"""Bytes of the largest config that is read."""


def read_config(path: Path) -> str:
    """The text of a config file.

    Raises:
        ConfigError: it cannot be read, is too large, or is not UTF-8.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(MAX_CONFIG + 1)
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no config at {path}", hint="give its path with --config FILE"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read the config {path}: {error.strerror}", hint="run this as root"
        ) from error
    if len(raw) > MAX_CONFIG:
        raise ConfigError(f"the config {path} is larger than {MAX_CONFIG} bytes")
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ConfigError(
            f"the config {path} is not UTF-8 text (byte {error.start})", hint="save it as UTF-8"
        ) from error


def write_whole(path: Path, text: str, *, mode: int) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part (rename(2)).

    Raises:
        StartError: the directory does not let us.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    try:
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
        with os.fdopen(descriptor, "w") as file:
            os.fchmod(descriptor, mode)
            file.write(text)
            file.flush()
            os.fsync(descriptor)
        temporary.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise StartError(
            f"cannot write {path}: {error.strerror}", hint="run as root, or change agent.run_dir"
        ) from error


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make a directory and its parents.

    Raises:
        StartError: it cannot be made.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot create the directory {path}: {error.strerror}",
            hint="run as root, or change agent.run_dir",
        ) from error


@contextlib.contextmanager
def only_agent(path: Path) -> Iterator[None]:
    """Hold the lock that one agent a run directory holds; the file bears the agent's pid.

    The lock goes with the process, however it ends (flock(2)), so a stale file does no harm.

    Raises:
        StartError: another agent holds it.
    """
    try:
        file = path.open("a+")
    except OSError as error:
        raise StartError(
            f"cannot open {path}: {error.strerror}", hint="run as root, or change agent.run_dir"
        ) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            file.seek(0)
            raise StartError(
                f"another ipsec-agent is already running (pid {file.read().strip() or 'unknown'})",
                hint="see `ipsec-agent status`, or stop it with `ipsec-agent stop`",
            ) from error
        file.truncate(0)
        file.write(f"{os.getpid()}\n")
        file.flush()
        try:
            yield
        finally:
            file.truncate(0)
