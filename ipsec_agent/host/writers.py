"""Who may write what the agent trusts: its config, its directories, and the way to them.

Trusted are root and the agent's own user. A group counts as others, except that of root.
"""

import grp
import os
import socket
import stat
import struct
from collections.abc import Iterator
from pathlib import Path
from shlex import quote

from ipsec_agent.errors import ConfigError, StartError

UCRED = struct.Struct("3i")
"""linux/socket.h"""

MOST_LINKS = 40
"""Symbolic links that the kernel follows in one path (path_resolution(7))."""


def trusted(uid: int) -> bool:
    """Whether a user may do all that the agent can: root, and who runs it."""
    return uid in {0, os.geteuid()}


def peer_of(channel: socket.socket) -> tuple[int, int]:
    """Pid and user at the other end of a UNIX socket: of who called connect or listen (unix(7))."""
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    pid, uid, _gid = UCRED.unpack(credentials)
    return int(pid), int(uid)


def refuse_writable_directory(path: Path) -> None:
    """Refuse a directory of the agent's that others may write, or may put another in place of.

    Who may write there can put sockets and files of his own in place of the agent's.

    Raises:
        StartError: the message names the directory, the hint the command.
    """
    last = path.resolve()
    for place in _places(path):
        try:
            found = place.lstat()
        except FileNotFoundError:
            return
        except OSError as error:
            raise StartError(f"cannot look at {place}: {error.strerror}") from error
        # In a sticky directory others cannot replace what is not theirs (chmod(1)): good enough
        # for the way, such as through /tmp.
        remedy = _remedy(place, found, sticky_is_fine=place != last)
        if remedy:
            raise StartError(
                f"the directory {place} can be written by others than root, and the agent trusts"
                f" what is in {path}",
                hint=remedy,
            )


def refuse_writable_config(path: Path) -> None:
    """Refuse a config that others may write; as root only, since elsewhere it enforces nothing.

    Raises:
        ConfigError: the message names file or directory, the hint the command.
        OSError: it is gone.
    """
    if os.geteuid() != 0:
        return
    for place in _places(path.absolute()):
        remedy = _remedy(place, place.lstat(), sticky_is_fine=True)
        if remedy:
            raise ConfigError(
                f"{place} can be written by others than root: they could turn IPsec off",
                hint=remedy,
            )


def readers(found: os.stat_result) -> str:
    """Who besides root and the owner may read a file; "" for nobody."""
    if found.st_mode & stat.S_IROTH:
        return "every user"
    if found.st_mode & stat.S_IRGRP and found.st_gid != 0:
        try:
            return f"the group {grp.getgrgid(found.st_gid).gr_name}"
        except KeyError:
            return f"the group {found.st_gid}"
    return ""


def _remedy(path: Path, found: os.stat_result, *, sticky_is_fine: bool) -> str:
    """The command that keeps others from writing; "" where they cannot."""
    if not trusted(found.st_uid):
        return f"chown root {quote(str(path))}"
    if stat.S_ISLNK(found.st_mode):
        return ""
    if sticky_is_fine and stat.S_ISDIR(found.st_mode) and found.st_mode & stat.S_ISVTX:
        return ""
    if found.st_mode & stat.S_IWOTH or (found.st_mode & stat.S_IWGRP and found.st_gid != 0):
        return f"chmod go-w {quote(str(path))}"
    return ""


def _places(path: Path) -> Iterator[Path]:
    """Every directory and link through which an absolute path leads, the last one included."""
    here, links = Path("/"), 0
    left = list(reversed(path.parts[1:]))
    yield here
    while left:
        part = left.pop()
        if part == "..":
            here = here.parent
            continue
        step = here / part
        yield step
        if not step.is_symlink():
            here = step
            continue
        links += 1
        if links > MOST_LINKS:
            return
        target = step.readlink()
        here = Path("/") if target.is_absolute() else here
        left += [one for one in reversed(target.parts) if one != "/"]
