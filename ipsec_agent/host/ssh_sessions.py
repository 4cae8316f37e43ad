"""The SSH sessions of this VM, by the connections that its SSH servers have.

A terminal multiplexer, `su -` or a console has no SSH_CONNECTION, or that of a session that is
over.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ipsec_agent.core.model import Address
from ipsec_agent.host.proc_net import address
from ipsec_agent.host.socket_holders import PROC, sockets

SERVERS = ("sshd", "dropbear")
"""What the programs of an SSH session's server are called; OpenSSH 10 has sshd-session."""

TABLES = ("thread-self/net/tcp", "thread-self/net/tcp6")
"""Of this network namespace."""

ESTABLISHED, LISTENING = "01", "0A"
"""include/net/tcp_states.h."""

SSH = 22


def ssh_clients(proc: Path = PROC) -> tuple[Address, ...]:
    """Who is connected to an SSH server of this VM; what cannot be read tells nothing."""
    held: set[int] = set()
    for process in _servers(proc):
        with contextlib.suppress(OSError, ValueError):
            held |= set(sockets(process))
    lines = [line for table in TABLES for line in _lines(proc / table)] if held else []
    served, found = {SSH}, dict[Address, None]()
    for state in (LISTENING, ESTABLISHED):
        for line in lines:
            with contextlib.suppress(IndexError, ValueError):
                words = line.split()
                port, inode = int(words[1].partition(":")[2], 16), int(words[9])
                if words[3] == state == LISTENING:
                    served.add(port)
                # What a server forwards it sends from another port.
                elif words[3] == state and inode in held and port in served:
                    found[address(words[2].partition(":")[0])] = None
    return tuple(found)


def _servers(proc: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for place in proc.iterdir():
            if place.name.isdecimal():
                with contextlib.suppress(OSError):
                    if (place / "comm").read_text(errors="replace").startswith(SERVERS):
                        yield place


def _lines(table: Path) -> list[str]:
    try:
        return table.read_text(encoding="ascii", errors="replace").splitlines()[1:]
    except OSError:
        return []
