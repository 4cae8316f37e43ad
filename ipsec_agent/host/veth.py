"""The end of a veth that lies in a container, in another network namespace: its MTU.

The VM's end alone must not be lowered: the container then still sends packets of its own MTU, and
the VM's end drops them (drivers/net/veth.c, __dev_forward_skb2), even those that a router could
have cut in pieces; and a TCP connection goes on to use the larger segments (seen, Linux 6.1).

The kernel tells the number of the other namespace (IFLA_LINK_NETNSID, RTM_GETNSID: rtnetlink(7),
linux/net_namespace.h), not where it is; it is looked for where programs keep theirs. A thread that
ends afterwards enters it, which needs CAP_SYS_ADMIN (setns(2)).
"""

import asyncio
import ctypes
import os
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from ipsec_agent.errors import KernelError
from ipsec_agent.host.rtnetlink import (
    IFINFO,
    NETNSA_FD,
    NETNSA_NSID,
    NLM_F_ACK,
    RTGEN,
    RTM_GETLINK,
    RTM_GETNSID,
    RTM_NEWLINK,
    ask,
    attribute,
    attributes,
    number,
    open_rtnetlink,
)

CLONE_NEWNET = 0x40000000
CAP_SYS_ADMIN = 21
NAMED = ("/run/netns", "/run/docker/netns")
"""Where ip-netns(8) and Docker keep namespaces; the others are those of processes."""

IFLA_MTU, IFLA_LINK, IFLA_LINKINFO, IFLA_INFO_KIND, IFLA_LINK_NETNSID = 4, 5, 18, 1, 37
"""linux/if_link.h."""


def may_enter() -> bool:
    """Whether this process has the capability that entering a namespace needs."""
    status = Path("/proc/self/status").read_text(errors="replace")
    effective = int(status.partition("\nCapEff:\t")[2].partition("\n")[0], 16)
    return bool(effective >> CAP_SYS_ADMIN & 1)


async def lower_inner_end(index: int, mtu: int) -> None:
    """Lower the MTU of a veth's other end, where that is in another namespace and larger.

    Does nothing for links of other kinds.

    Args:
        index: of the end in this process's namespace.
        mtu: bytes.

    Raises:
        KernelError: no such link, cannot find its network namespace, or may not be entered.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        await loop.run_in_executor(thread, _lower, index, mtu)


def _lower(index: int, mtu: int) -> None:
    """In a thread of its own, which stays in the namespace that it entered."""
    doing = f"setting the MTU of the other end of link {index}"
    try:
        with open_rtnetlink() as here:
            link = ask(here, RTM_GETLINK, IFINFO.pack(0, 0, index, 0, 0))
            kind = dict(attributes(link.get(IFLA_LINKINFO, b""))).get(IFLA_INFO_KIND, b"")
            if kind.rstrip(b"\0") != b"veth" or IFLA_LINK_NETNSID not in link:
                return
            peer = number(link[IFLA_LINK])
            _enter(here, number(link[IFLA_LINK_NETNSID]))
        with open_rtnetlink() as there:
            inner = IFINFO.pack(0, 0, peer, 0, 0)
            if number(ask(there, RTM_GETLINK, inner)[IFLA_MTU]) > mtu:
                ask(there, RTM_NEWLINK, inner + attribute(IFLA_MTU, mtu), NLM_F_ACK)
    except OSError as error:
        raise KernelError(
            f"{doing}: {os.strerror(error.errno) if error.errno else error}",
            code=error.errno or 0,
            hint=f"set it to {mtu} in the container network's settings",
        ) from error


def _enter(here: socket.socket, nsid: int) -> None:
    """Have this thread enter a namespace by the number that ours gives it."""
    libc = ctypes.CDLL(None, use_errno=True)
    for path in namespace_files():
        try:
            descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        except OSError:
            continue
        try:
            request = RTGEN.pack(0) + attribute(NETNSA_FD, descriptor)
            if number(ask(here, RTM_GETNSID, request)[NETNSA_NSID]) == nsid:
                if libc.setns(descriptor, CLONE_NEWNET):
                    raise OSError(ctypes.get_errno(), "setns")
                return
        finally:
            os.close(descriptor)
    raise FileNotFoundError(2, "cannot find its network namespace")


def namespace_files() -> Iterator[Path]:
    """Files of network namespaces, each namespace once."""
    seen = set()
    named = (path for place in NAMED for path in Path(place).glob("*"))
    for path in (*named, *Path("/proc").glob("[0-9]*/ns/net")):
        try:
            inode = path.stat().st_ino
        except OSError:
            continue
        if inode not in seen:
            seen.add(inode)
            yield path
