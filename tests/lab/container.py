"""A container behind a VM, translated in both directions, as a Diego cell or Docker does it."""

import contextlib
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.charon.nodes import DEADLINE, Node, ips, remove
from tests.lab.namespaces import await_links, inside

PORT = 9000


@contextlib.contextmanager
def container(node: Node, number: int) -> Iterator[tuple[str, str]]:
    """A container of a VM: its namespace and its address 172.31.<number>.2.

    Outward its packets bear the VM's address; port 9000 of the VM leads to it.
    """
    name, inner = f"{node.name}c", f"172.31.{number}"
    try:
        # What its packets become as ESP fits into 1,400 bytes, too.
        ips(
            f"netns add {name}",
            f"link add c0 mtu 1300 netns {node.name} type veth peer eth0 mtu 1300 netns {name}",
        )
        ips(f"addr add {inner}.1/24 dev c0", "link set c0 up", netns=node.name)
        ips(
            f"addr add {inner}.2/24 dev eth0",
            "link set eth0 up",
            f"route add default via {inner}.1",
            netns=name,
        )
        await_links(name, "eth0")
        await_links(node.name, "c0")
        with inside(node.name):
            Path("/proc/sys/net/ipv4/ip_forward").write_text("1")
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
        remove([name])
