"""A negotiation that takes seconds makes a CHILD_SA that stays."""

import subprocess
import time
from pathlib import Path

import pytest

from tests.charon.nodes import SCALE, network, until
from tests.lab.deployment import configure, peer_of, start
from tests.lab.test_mesh import one_packet_each
from tests.lab.truth import child_sas

pytestmark = [pytest.mark.long, pytest.mark.timeout(300)]

VMS = 6

NO_IKE_AUTH = """
table inet slow {
    chain arrives {
        type filter hook input priority 0
        udp dport 500 @th,208,8 35 counter drop
    }
}
"""
"""Drops requests of IKE_AUTH: behind 8 bytes of UDP, byte 18 of the IKE header (RFC 7296, 3.1)."""

HELD = 3.0
"""Seconds: charon sends the request again after 1, 2.3 and 4."""


def nft(netns: str, *words: str, text: str | None = None) -> None:
    """Run nft(8) in a namespace."""
    command = ["ip", "netns", "exec", netns, "nft", *words]
    subprocess.run(command, check=True, input=text, text=True, timeout=30 * SCALE)


def test_a_slow_negotiation(tmp_path: Path) -> None:
    """charon counts a CHILD_SA's age from the request that was lost: none of them is ended."""
    with network(tmp_path, VMS, "sl") as nodes:
        configure(nodes, [])
        start(nodes)
        first, *others = nodes
        for node in others:
            nft(node.name, "-f", "-", text=NO_IKE_AUTH)
        one_packet_each(nodes, 1)
        time.sleep(HELD)
        for node in others:
            nft(node.name, "delete", "table", "inet", "slow")

        peers = [f"10.9.0.{number}" for number in range(2, VMS + 1)]
        until(lambda: all(peer_of(first, at).get("state") == "installed" for at in peers), "all up")
        ages = [peer_of(first, at)["age"] for at in peers]
        made = child_sas(first)
        time.sleep(4)  # passes that every event brought are over

        assert min(ages) >= HELD, "the negotiation was not slow"
        assert len(made) == len(peers)
        assert child_sas(first) == made
        assert [
            line for node in nodes for line in node.log.splitlines() if "terminate" in line
        ] == []
