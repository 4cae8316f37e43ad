"""A charon that hangs: every thread of it waits."""

import socket
import struct
import time
from ipaddress import ip_address

from vici.protocol import Message, Packet

from tests.charon.nodes import DEADLINE, Node, connected, until
from tests.lab.truth import charon_of

HELD = 96
"""Requests that hold every thread of charon's."""


def wedge(node: Node, own: str, nobody: str, held: list[socket.socket]) -> None:
    """Hold all of charon's threads: each waits for a negotiation that none is left to go on with.

    Found with strongSwan 5.9.8, where it lasts for ever: an `initiate` without a limit keeps the
    thread that serves it, and what it waits for needs a thread, too.

    Args:
        own: an address of the VM.
        nobody: an address that no VM has.
        held: where the sockets go that are to stay open, or charon would give up.
    """
    with charon_of(node) as session:
        ends = {"local_addrs": [own], "remote_addrs": [nobody]}
        remote = f"{nobody}/{ip_address(nobody).max_prefixlen}"
        child = {"mode": "transport", "remote_ts": [remote]}
        auth = {"local": {"auth": "pubkey"}, "remote": {"auth": "pubkey"}}
        session.load_conn({"hang": {"version": "2", **ends, **auth, "children": {"hang": child}}})
    request = Packet.request(
        "initiate", Message.serialize({"child": "hang", "ike": "hang", "timeout": "0"})
    )
    end = time.monotonic() + DEADLINE
    while _takes(node, request, held):
        assert time.monotonic() < end, f"charon serves {len(held)} requests"
    until(lambda: not _answers(node), "charon hangs")


def _takes(node: Node, request: bytes, held: list[socket.socket]) -> bool:
    """Whether charon takes one more request."""
    try:
        channel = connected(node.run_dir / "charon.vici", 2.0)
    except OSError:
        return False
    held.append(channel)
    channel.sendall(struct.pack("!I", len(request)) + request)
    return len(held) < HELD


def _answers(node: Node) -> bool:
    try:
        with charon_of(node, 2.0) as session:
            return bool(session.version())
    except OSError:
        return False
