"""Network namespaces: entered while a socket or a program is made; and their links."""

import contextlib
import ctypes
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

from ipsec_agent.host.rtnetlink import IFINFO, RTM_GETLINK, attributes, dump, open_rtnetlink

CLONE_NEWNET = 0x40000000
IFLA_IFNAME, IFLA_OPERSTATE, IF_OPER_UP = 3, 16, 6

READY_WITHIN = 20 * float(os.environ.get("LAB_TIME_SCALE", "1"))
"""Seconds for a link to be ready; it is milliseconds on a machine without load."""


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """Be in a namespace, with this thread only: sockets and programs made here stay there.

    Far cheaper than `ip netns exec`, above all in the lab's guest (setns(2); Python has it from
    3.12 on).
    """
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        Path("/proc/thread-self/ns/net").open("rb") as home,
        Path("/run/netns", netns).open("rb") as there,
    ):
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {netns}")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")


def await_links(netns: str, *names: str) -> None:
    """Wait until these links can send.

    The kernel makes a link ready some time after its carrier came (net/core/link_watch.c: in a
    worker, behind everybody who changes links); until then it drops what is sent, and the question
    for a neighbour is asked again after a second only.

    Raises:
        AssertionError: one is not ready after `READY_WITHIN`.
    """
    with inside(netns):
        await_links_here(*names)


def await_links_here(*names: str) -> None:
    """The same of links in this thread's namespace."""
    end = time.monotonic() + READY_WITHIN
    with open_rtnetlink() as channel:
        while not_ready := set(names) - set(_ready(channel)):
            assert time.monotonic() < end, f"{not_ready} cannot send"
            time.sleep(0.01)


def _ready(channel: socket.socket) -> Iterator[str]:
    for payload in dump(channel, RTM_GETLINK, IFINFO.pack(0, 0, 0, 0, 0)):
        found = dict(attributes(payload[IFINFO.size :]))
        if found[IFLA_OPERSTATE][0] == IF_OPER_UP:
            yield found[IFLA_IFNAME].rstrip(b"\0").decode()
