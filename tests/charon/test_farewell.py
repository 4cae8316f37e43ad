"""How soon peers hear of it that a drain has ended IPsec."""

import contextlib
import json
import subprocess
import time
from functools import partial
from pathlib import Path

import pytest

from tests.charon.nodes import AGENT, FIGURES, SCALE, Node, need_ike_sas, network, until
from tests.charon.shared_manifest import configure

pytestmark = pytest.mark.charon

PEERS = 8

PROMISE = 1.0
"""Seconds after the end of the wait within which each peer has charon's DELETE."""

NOBODY = "10.9.0.200/32"


def ending(node: Node) -> bool:
    """Whether the wait is over, and charon told to end."""
    with contextlib.suppress(FileNotFoundError):
        said = json.loads((node.run_dir / "drain.json").read_text())
        return said["phase"] in ("ending", "ended")
    return False


def has_ike_sa(node: Node) -> bool:
    """Whether its agent shows an IKE_SA with anybody."""
    return any(it["ike_sas"] for it in node.status()["peers"])


def told(node: Node) -> bool:
    """Whether its charon has a peer's DELETE."""
    return "received DELETE for IKE_SA" in node.charon_log


@pytest.mark.long
@pytest.mark.parametrize("agent", [True, False], ids=["with an agent", "without"])
def test_each_peer_is_told(tmp_path: Path, agent: bool) -> None:
    """All of them within a second of the end of the wait, whether an agent runs or not.

    With one peer test_drain.py measures it.
    """
    with network(tmp_path, 1 + PEERS, "fw") as nodes:
        ours, *others = nodes
        for node in nodes:
            configure(node, no_ipsec=[NOBODY])
            node.start()
        for node in nodes:
            node.settled()
        need_ike_sas(ours)
        for number in range(2, 2 + PEERS):
            ours.send(f"10.9.0.{number}")
        for node in others:
            until(partial(has_ike_sa, node), "an IKE_SA")
        assert not any(told(node) for node in others)
        if not agent:
            assert ours.end_agent() == 0
        vcap = str(ours.directory / "vcap")
        words = ("drain", "--config", str(ours.config), "--timeout", "0", "--vcap", vcap)
        with subprocess.Popen(
            ours.command(*AGENT, *words), stdin=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            until(lambda: ending(ours), "the wait ends", every=0.01)
            began = time.monotonic()
            until(lambda: all(told(node) for node in others), "all are told", every=0.01)
            seconds = time.monotonic() - began
            assert process.wait(30 * SCALE) == 0
    with_agent = "with an agent" if agent else "without one"
    FIGURES.append(f"{PEERS} peers told after the end of a drain ({with_agent}): {seconds:.2f} s")
    assert seconds < PROMISE * SCALE
