"""A container behind a VM, translated in both directions, as a Diego cell or Docker does it."""

import contextlib
import subprocess
from collections.abc import Iterator

from tests.charon.nodes import DEADLINE, Node, ip

PORT = 9000


@contextlib.contextmanager
def container(node: Node, number: int) -> Iterator[tuple[str, str]]:
    """A container of a VM: its namespace and its address 172.31.<number>.2.

    Outward its packets bear the VM's address; port 9000 of the VM leads to it.
    """
    name, inner = f"{node.name}c", f"172.31.{number}"
    ip("netns", "add", name)
    try:
        # What its packets become as ESP fits into 1,400 bytes, too.
        ends = (("c0", node.name), ("eth0", name))
        (c0, eth0) = (("mtu", "1300", "name", end, "netns", netns) for end, netns in ends)
        ip("link", "add", *c0, "type", "veth", "peer", *eth0)
        ip("addr", "add", f"{inner}.1/24", "dev", "c0", netns=node.name)
        ip("link", "set", "c0", "up", netns=node.name)
        ip("addr", "add", f"{inner}.2/24", "dev", "eth0", netns=name)
        ip("link", "set", "eth0", "up", netns=name)
        ip("route", "add", "default", "via", f"{inner}.1", netns=name)
        subprocess.run(
            node.command("sh", "-c", "echo 1 > /proc/sys/net/ipv4/ip_forward"),
            check=True,
            timeout=DEADLINE,
        )
        rules = f"""
        table ip nat {{
          chain out {{ type nat hook postrouting priority srcnat;
            oifname "eth0" ip saddr {inner}.0/24 masquerade; }}
          chain in {{ type nat hook prerouting priority dstnat;
            iifname "eth0" meta l4proto {{ tcp, udp }} th dport {PORT} dnat to {inner}.2; }}
        }}"""
        subprocess.run(
            node.command("nft", "-f", "-"),
            input=rules,
            text=True,
            check=True,
            timeout=DEADLINE,
        )
        yield name, f"{inner}.2"
    finally:
        ip("netns", "del", name)
