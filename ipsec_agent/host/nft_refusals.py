"""Why nf_tables refuses, and what to do: who owns a table, and whether the kernel has nf_tables.

A program may own a table (`flags owner`): while it runs, nobody else can change it. One that is to
outlast its owner (`flags owner,persist`, Linux 6.9) anybody may delete then, but not name again
without that flag, as each of our texts begins.
"""

import errno
import re
from pathlib import Path

from ipsec_agent.core.model import GUARD_TABLE
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_image import GET_GENERATION, GET_TABLE, TABLE
from ipsec_agent.host.nft_wire import (
    NETLINK_NETFILTER,
    NFPROTO_INET,
    NFPROTO_NETDEV,
    NFPROTO_UNSPEC,
    Channel,
    attributes,
    text,
)
from ipsec_agent.host.socket_holders import PROC, Holder, holders

NO_NF_TABLES = "this kernel lacks nf_tables: run `modprobe nf_tables`, or set agent.guard: none"
NOT_ROOT = "run as root, or with the capability CAP_NET_ADMIN"

_FAMILIES = {NFPROTO_INET: "inet", NFPROTO_NETDEV: "netdev"}
_OWNER = 7
_ABSENT = "No such file or directory"
"""What nft says of a module that the kernel lacks."""

_OUR_FILE = re.compile(r"/proc/self/fd/\d+:(\d+)(?:-\d+)?:[\d-]+: ")
"""Where nft finds a fault; the file is one of ours that nobody can open."""


def refusal(doing: str, complaint: str) -> KernelError:
    """What nft's complaint means."""
    reason = complaint.strip().splitlines()[0] if complaint.strip() else "nft gave no reason"
    reason = _OUR_FILE.sub(r"line \1: ", reason)
    code, hint = 0, "try `nft -c -f FILE` by hand"
    if "not permitted" in reason:
        code = errno.EPERM
        owned = owner()
        if owned:
            reason, hint = owned
        else:
            hint = NOT_ROOT
    elif "not supported" in reason or "Netlink socket" in reason:
        code = errno.EOPNOTSUPP
        hint = hint if has_nf_tables() else NO_NF_TABLES
    elif _ABSENT in reason:
        code = errno.ENOENT
        hint = (
            "this kernel lacks a module: run `modprobe -a nft_fib_inet nft_xfrm`, or try `nft -c -f"
            " FILE`"
        )
    return KernelError(f"{doing}: {reason}", code=code, hint=hint)


def has_nf_tables() -> bool:
    """Whether the kernel answers the simplest question about tables."""
    try:
        with Channel() as channel:
            return bool(list(channel.ask(GET_GENERATION, b"", NFPROTO_UNSPEC)))
    except OSError as error:
        # Who may not ask does not know either.
        return error.errno == errno.EPERM


def owner(proc: Path = PROC) -> tuple[str, str] | None:
    """Which program owns a table of ours, and what to do; None where none does."""
    for family, name in _FAMILIES.items():
        port = _port(family)
        if port:
            pid, program = _holder(port, proc)
            who = f"pid {pid} ({program})" if pid else "a program that cannot be seen from here"
            reason = f"{who} owns the table {name} {GUARD_TABLE}, so nobody else can change it"
            end = f"end that program{f' (`kill {pid}`)' if pid else ''}"
            return reason, f"{end}; then the agent, or `ipsec-agent guard up`, loads the guard"
    return None


def _port(family: int) -> int:
    """The netlink port of a table's owner, 0 where it has none."""
    try:
        with Channel() as channel:
            ((_, payload),) = channel.ask(GET_TABLE, text(TABLE, GUARD_TABLE), family)
    except OSError:
        return 0
    return int.from_bytes(dict(attributes(payload)).get(_OWNER, b""))


def _holder(port: int, proc: Path) -> Holder:
    """Whose a netlink port is: mostly, but not always, it is the process's id."""
    try:
        lines = (proc / "thread-self/net/netlink").read_text(encoding="ascii").splitlines()[1:]
    except OSError:
        return Holder()
    for line in lines:
        words = line.split()
        if (int(words[1]), int(words[2])) == (NETLINK_NETFILTER, port):
            inode = int(words[9])
            return holders({inode}, proc)[inode]
    return Holder()
