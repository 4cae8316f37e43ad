"""Files: the config is read, files of ours are written whole, one agent holds a run directory."""

import contextlib
import errno
import fcntl
import io
import json
import os
import select
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from shlex import quote

import msgspec

from ipsec_agent.core.manifest.complaint import Complaint
from ipsec_agent.core.manifest.encodings import NotUtf8Error, decoded
from ipsec_agent.core.terse import Terse
from ipsec_agent.core.words import encodable
from ipsec_agent.errors import AgentError, ConfigError, StartError
from ipsec_agent.host.writers import (
    readers,
    refuse_writable_config,
    refuse_writable_directory,
    trusted,
)

PEM_SUFFIXES = (".pem", ".crt", ".cer", ".key")

MAX_CONFIG = 4 * 1024 * 1024
"""Bytes of the largest config that is read."""

LOCK_FLAGS = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
NEW_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC | os.O_NOFOLLOW

PIPE_DEADLINE = 10.0
"""Seconds within which a config that comes through a pipe must have come."""


def read_config(path: Path) -> str:
    """The text of a config file, or of a pipe such as /dev/stdin.

    Raises:
        ConfigError: it cannot be read, is too large, is not UTF-8, or others may write it.
    """
    try:
        # A FIFO that nobody writes to must not be waited for.
        with io.FileIO(path, opener=_without_waiting) as file:
            kind = os.fstat(file.fileno()).st_mode
            if stat.S_ISREG(kind):
                refuse_writable_config(path)
            elif not stat.S_ISFIFO(kind):
                raise ConfigError(f"the config {path} is not a file", hint="give a file's path")
            raw = _received(path, file)
            if stat.S_ISFIFO(kind) and not raw:
                raise ConfigError(
                    f"the config {path} is a pipe that nobody writes to", hint="give a file's path"
                )
    except FileNotFoundError as error:
        raise ConfigError(
            f"there is no config at {path}", hint="put it there, or check its path"
        ) from error
    except OSError as error:
        raise ConfigError(
            f"cannot read the config {path}: {error.strerror}",
            hint="run this as root" if isinstance(error, PermissionError) else "",
        ) from error
    if len(raw) > MAX_CONFIG:
        raise ConfigError(f"the config {path} is larger than {MAX_CONFIG} bytes")
    try:
        return decoded(raw, str(path))
    except NotUtf8Error as error:
        raise ConfigError(f"the config {path} {error.what}", hint=error.remedy) from error


def read_pem(path: Path) -> str:
    """The text of a file with certificates or keys, or of a config that is only looked at.

    Raises:
        AgentError: it cannot be read, is too large, or is no text.
    """
    try:
        with io.FileIO(path, opener=_without_waiting) as file:
            raw = _received(path, file)
    except FileNotFoundError as error:
        raise AgentError(f"there is no file {path}", hint="check its path") from error
    except OSError as error:
        raise AgentError(
            f"cannot read {path}: {error.strerror}",
            hint="run this as root" if isinstance(error, PermissionError) else "",
        ) from error
    if len(raw) > MAX_CONFIG:
        raise AgentError(f"{path} is larger than {MAX_CONFIG} bytes")
    try:
        # PEM is ASCII, whatever the text around it is.
        return raw.decode(errors="replace" if b"-----BEGIN " in raw else "strict")
    except UnicodeDecodeError as error:
        kind = Path(path).suffix.lower()
        reader = "pkcs12 -nodes" if kind in {".p12", ".pfx"} else "x509 -inform der"
        raise AgentError(
            f"{path} is not text",
            hint=f"make PEM of it: openssl {reader} -in {quote(str(path))}",
        ) from error


def pem_files(directory: Path) -> tuple[Path, ...]:
    """The files of a directory whose names say that they have certificates or keys, sorted.

    Raises:
        AgentError: there are none, or it cannot be read.
    """
    try:
        found = tuple(sorted(one for one in directory.iterdir() if one.suffix in PEM_SUFFIXES))
    except OSError as error:
        raise AgentError(f"cannot read {directory}: {error.strerror}") from error
    if not found:
        raise AgentError(
            f"{directory} has no file named *{', *'.join(PEM_SUFFIXES)}",
            hint="give the files themselves",
        )
    return found


def open_regular(path: Path) -> io.FileIO:
    """Open a file to be read; what else may have its name, such as a FIFO, is not waited for.

    Raises:
        OSError: it cannot be opened, or is no regular file.
    """
    file = io.FileIO(path, opener=_without_waiting)
    if not stat.S_ISREG(os.fstat(file.fileno()).st_mode):
        file.close()
        raise OSError(errno.EINVAL, "is not a regular file", str(path))
    return file


def _without_waiting(path: str, flags: int) -> int:
    return os.open(path, flags | os.O_NONBLOCK)


def _received(path: Path, file: io.FileIO) -> bytes:
    """All that a file or pipe holds, but not much more than a config may have."""
    received = bytearray()
    end = time.monotonic() + PIPE_DEADLINE
    while len(received) <= MAX_CONFIG:
        part = file.read(1 << 16)
        if part:
            received += part
        elif part is not None:
            break
        elif not select.select([file], [], [], max(0.0, end - time.monotonic()))[0]:
            raise ConfigError(
                f"the config {path} is a pipe that did not end within {PIPE_DEADLINE:g} s",
                hint="give a file's path",
            )
    return bytes(received)


def config_warnings(path: Path) -> tuple[Complaint, ...]:
    """That others may read a config with a private key in it; as root only, as on the VM."""
    try:
        found = path.stat()
    except OSError:
        return ()
    who = readers(found) if os.geteuid() == 0 and stat.S_ISREG(found.st_mode) else ""
    if not who:
        return ()
    remedy = f"chmod 0600 {quote(str(path))}"
    if who == "the group vcap":
        remedy += " in the job's pre-start: BOSH renders templates 0640 root:vcap at each deploy"
    message = f"{who} can read this file, which holds a private key"
    return (Complaint(str(path), 0, "", message, remedy, "warning"),)


class NewFile(Terse, frozen=True):
    """A file to write.

    Attributes:
        text: all of it, which may be a key.
        mode: its permissions.
    """

    unshown = ("text",)

    path: Path
    text: str
    mode: int

    @property
    def temporary(self) -> Path:
        """Where it is written first."""
        return self.path.with_name(f".{self.path.name}.{os.getpid()}")


def write_whole(path: Path, text: str, *, mode: int) -> None:
    """Write a file so that a reader sees the old one or the new one, never a part (rename(2)).

    Raises:
        StartError: the directory does not let us.
    """
    write_together((NewFile(path, text, mode),), hint="run as root, or change agent.run_dir")


def as_json(records: object) -> str:
    """Records as JSON in one line, for a file; what UTF-8 does not have is written as `\\xff`."""
    return json.dumps(_encodable(msgspec.to_builtins(records)))


def _encodable(value: object) -> object:
    if isinstance(value, dict):
        return {_encodable(key): _encodable(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [_encodable(one) for one in value]
    return encodable(value) if isinstance(value, str) else value


def write_together(files: Sequence[NewFile], *, hint: str = "", unmixed: bool = False) -> None:
    """Write files, each whole; none takes its place before all are written.

    Args:
        unmixed: what is in their places goes before the first one comes, so that wherever this is
            cut, an old file is never beside a new one.

    Raises:
        StartError: a directory does not let us. Almost always none is replaced: to take the places
            fails only where a directory is changed meanwhile.
    """
    path = Path()
    try:
        for new in files:
            path = new.path
            _write_new(new)
        for new in files if unmixed else ():
            path = new.path
            path.unlink(missing_ok=True)
        for new in files:
            path = new.path
            new.temporary.replace(path)
    except OSError as error:
        raise StartError(
            f"cannot write {path}: {error.strerror}", hint=_remedy(error, path) or hint
        ) from error
    finally:
        # Also where the user interrupts it: one may have a key.
        for new in files:
            with contextlib.suppress(OSError):
                new.temporary.unlink()


def _remedy(error: OSError, path: Path) -> str:
    """What to do where it is the file system's fault, "" where it is not."""
    where = path.parent
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return f"make room: see `df -h {where}`, and `df -i {where}` for the number of files"
    if error.errno == errno.EROFS:
        return (
            f"the file system is mounted read-only: see `findmnt -T {where}`, and `dmesg` for why"
        )
    return ""


def _write_new(new: NewFile) -> None:
    with contextlib.suppress(FileNotFoundError):
        new.temporary.unlink()
    # Another user's file, which he has open, must not get a key.
    descriptor = os.open(new.temporary, NEW_FLAGS, new.mode)
    with os.fdopen(descriptor, "w", encoding="utf-8", errors="backslashreplace") as file:
        os.fchmod(descriptor, new.mode)
        file.write(new.text)
        file.flush()
        os.fsync(descriptor)


def make_directory(path: Path, *, mode: int = 0o755) -> None:
    """Make a directory and its parents.

    Raises:
        StartError: it cannot be made, or others may write it or replace it.
    """
    try:
        path.mkdir(mode=mode, parents=True, exist_ok=True)
    except OSError as error:
        raise StartError(
            f"cannot create the directory {path}: {error.strerror}",
            hint=_remedy(error, path) or "run as root, or change agent.run_dir",
        ) from error
    refuse_writable_directory(path)


def refuse_unfit_directory(path: Path) -> None:
    """Refuse what `make_directory` would refuse, but make nothing.

    Raises:
        StartError: it is no directory and none can be made there, or others may write it.
    """
    there = path
    while not there.exists() and not there.is_symlink():
        there = there.parent
    if not there.is_dir():
        raise StartError(
            f"cannot create the directory {path}: {there} is not a directory",
            hint=f"move {there} away, or change the config's section agent",
        )
    refuse_writable_directory(path)


@contextlib.contextmanager
def private_directory(path: Path) -> Iterator[None]:
    """Make a directory that only its owner may enter, for what is to be written there.

    One that is there stays as it is. Where the writing fails, what was made goes again.

    Raises:
        StartError: it cannot be made.
    """
    made: list[Path] = []
    try:
        try:
            made = [one for one in (path, *path.parents) if not one.exists()]
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise StartError(
                f"cannot create the directory {path}: {error.strerror}", hint=_remedy(error, path)
            ) from error
        yield
    except BaseException:
        # Also after an interrupt. What somebody else has put there stays.
        for one in made:
            with contextlib.suppress(OSError):
                one.rmdir()
        raise


@contextlib.contextmanager
def only_agent(path: Path) -> Iterator[None]:
    """Hold the lock that one agent a run directory holds; the file bears the agent's pid.

    The lock goes with the process, however it ends (flock(2)), so a stale file does no harm. Who
    can open the file can hold the lock, so nobody else may.

    Raises:
        StartError: another agent holds it, or the file is another user's.
    """
    try:
        file = os.fdopen(os.open(path, LOCK_FLAGS, 0o600), "r+")
    except io.UnsupportedOperation as error:
        # Something in which no place can be sought, such as a FIFO.
        hint = f"rm {quote(str(path))}"
        raise StartError(f"cannot open {path}: it is not a file", hint=hint) from error
    except OSError as error:
        there = f"rm {quote(str(path))}" if error.errno == errno.ELOOP else ""
        raise StartError(
            f"cannot open {path}: {error.strerror}",
            hint=_remedy(error, path) or there or "run as root, or change agent.run_dir",
        ) from error
    with file:
        if not trusted(os.fstat(file.fileno()).st_uid):
            hint = f"end what uses it, and rm {quote(str(path))}"
            raise StartError(f"{path} is another user's", hint=hint)
        os.fchmod(file.fileno(), 0o600)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise _locked(path, file.read()) from error
        try:
            file.truncate(0)
            # At once: what a buffer holds would fail again when it is closed.
            os.write(file.fileno(), f"{os.getpid()}\n".encode())
        except OSError as error:
            raise StartError(
                f"cannot write {path}: {error.strerror}", hint=_remedy(error, path)
            ) from error
        try:
            yield
        finally:
            file.truncate(0)


def _locked(path: Path, content: str) -> StartError:
    noted = content.strip()
    if noted.isdecimal() and Path(f"/proc/{noted}").exists():
        socket = quote(str(path.with_name("control.sock")))
        return StartError(
            f"another ipsec-agent is already running (pid {noted})",
            hint=f"see `ipsec-agent status --socket {socket}`, or stop it with"
            f" `ipsec-agent stop --socket {socket}`",
        )
    return StartError(
        f"another program holds the lock on {path}, and no agent wrote its pid there",
        hint=f"find it with `fuser -v {quote(str(path))}`, and end it",
    )
