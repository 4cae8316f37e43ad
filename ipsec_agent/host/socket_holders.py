"""Which processes hold sockets, by the links of proc_pid_fd(5)."""

import contextlib
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from pathlib import Path
from typing import NamedTuple

PROC = Path("/proc")


class Holder(NamedTuple):
    """A process; pid 0 is the kernel itself, or one that cannot be seen from here."""

    pid: int = 0
    name: str = ""


def holders(inodes: AbstractSet[int], proc: Path = PROC) -> dict[int, Holder]:
    """The holder of each socket; this walks every process."""
    found = dict.fromkeys(inodes, Holder())
    if not inodes:
        return found
    for place in proc.iterdir():
        if place.name.isdecimal():
            with contextlib.suppress(OSError, ValueError):
                for inode in inodes & set(sockets(place)):
                    name = (place / "comm").read_text(errors="replace").strip()
                    found[inode] = Holder(int(place.name), name)
    return found


def sockets(process: Path) -> Iterator[int]:
    """The inodes of a process's sockets.

    Args:
        process: its directory in /proc.

    Raises:
        OSError: it has ended, or is not to be looked at.
        ValueError: a link is none of the kernel's kind.
    """
    for path in (process / "fd").iterdir():
        with contextlib.suppress(FileNotFoundError):
            kind, _, inode = str(path.readlink()).partition(":")
            if kind == "socket":
                yield int(inode.strip("[]"))
