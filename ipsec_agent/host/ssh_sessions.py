"""The SSH sessions of this VM, by the connections that its SSH servers have.

A terminal multiplexer, `su -` or a console has no SSH_CONNECTION, or that of a session that is
over.
"""

import contextlib
from collections.abc import Iterator
from pathlib import Path

from ipsec_agent.core.model import Address
from ipsec_agent.host.proc_net import ESTABLISHED, LISTENING, address, rows
from ipsec_agent.host.socket_holders import PROC, sockets

SERVERS = ("sshd", "dropbear")
"""What the programs of an SSH session's server are called; OpenSSH 10 has sshd-session."""

TABLES = ("thread-self/net/tcp", "thread-self/net/tcp6")
"""Of this network namespace."""

SSH = 22


def ssh_clients(proc: Path = PROC) -> tuple[Address, ...]:
    """Who is connected to an SSH server of this VM; what cannot be read tells nothing."""
    held: set[int] = set()
    for process in _servers(proc):
        with contextlib.suppress(OSError, ValueError):
            held |= set(sockets(process))
    found_rows = [row for table in TABLES for row in rows(proc / table)] if held else []
    served = {SSH} | {row.port for row in found_rows if row.state == LISTENING}
    found = dict[Address, None]()
    for row in found_rows:
        # What a server forwards it sends from another port.
        if row.state == ESTABLISHED and row.inode in held and row.port in served:
            with contextlib.suppress(ValueError):
                found[address(row.other)] = None
    return tuple(found)


def _servers(proc: Path) -> Iterator[Path]:
    with contextlib.suppress(OSError):
        for place in proc.iterdir():
            if place.name.isdecimal():
                with contextlib.suppress(OSError):
                    if (place / "comm").read_text(errors="replace").startswith(SERVERS):
                        yield place
