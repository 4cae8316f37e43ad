"""Lives a VM's life in a guest, once, and tells what is known of it."""

import json
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from tests.boot.place import BARE, PEER, VM
from tests.boot.story import Span, Story, figures
from tests.certificates import Issued
from tests.lab.frames import Kind
from tests.lab.guest import Boot, in_guest
from tests.manifests import manifest

BOSH_DEADLINE = 1000.0
"""Seconds of a life with BOSH."""

SUBNET = "10.9.0.0/24"
OPTIONS = "systemd.unit=multi-user.target systemd.show_status=no systemd.log_target=console"
PEERS: dict[str, Any] = {
    "run_dir": "/run/lab/run",
    "state_dir": "/run/lab/state",
    "charon": {"log": "/run/lab/charon.log"},
}
"""The peer's `agent:`."""


def config(leaf: Issued, ca: Issued, agent: dict[str, Any], **more: Any) -> str:
    """The config of one of the VMs, as a manifest."""
    return manifest([SUBNET], leaf=leaf, cas=[ca], agent=agent, prestart_timeout=100, **more)


def lived(
    life: str, results: Path, deadline: float, request: pytest.FixtureRequest, options: str = ""
) -> Story:
    """One life, from power on to power off; a table of it is printed.

    Args:
        results: a directory with all that the life needs.
        deadline: seconds for all of it.
        options: more of the kernel's command line.
    """
    wire = results / "wire.jsonl"
    began = time.monotonic()
    code = in_guest(
        [".venv/bin/python", "-m", "tests.boot.stage", life],
        results,
        deadline,
        boot=Boot(f"{OPTIONS} {options}", wire),
    )

    said = f"{_read(results / 'driver.log')}{_read(results / 'phases.json')}"
    assert code == 0, said
    assert time.monotonic() - began < deadline, f"the VM's power did not go: {said}"
    story = Story(
        [json.loads(line) for line in wire.read_text().splitlines() if line.endswith("}")],
        json.loads((results / "phases.json").read_text()),
        results,
    )
    capture = request.config.pluginmanager.get_plugin("capturemanager")
    assert capture is not None
    with capture.global_and_fixture_disabled():
        sys.stdout.write("\n".join(("", *figures(story), "")))
    return story


def _read(path: Path) -> str:
    return path.read_text() if path.exists() else f"no {path.name}; "


def judge(span: Span, *, attempts: int = 50) -> None:
    """Nothing in clear between the VM and its peers, where the capture could know."""
    assert span.grown("dropped") == 0, "the capture lost frames: it is no judge"
    assert span.grown("found") >= 1, "the capture missed what was planted: it is no judge"
    assert span.last["planted"] - span.last["found"] <= 1, "it missed something planted"
    for flow in ("vm", "vm-bare", "peer", "bare"):
        assert span.attempts(flow) >= attempts, f"{flow}: no judgement"
    clear = {
        f"{one} > {other}": span.frames(one, other, Kind.CLEAR)
        for one, other in ((VM, PEER), (PEER, VM), (VM, BARE))
    }
    assert not any(clear.values()), f"{clear}: {span.last['examples']}"


def judge_poweroff(story: Story, ended: float) -> None:
    """IPsec leaves in order, before the network; then the guard holds until the power goes.

    Args:
        ended: when IPsec was still needed.
    """
    networking = story.lines[-1]["flows"]["networking"][0]
    goodbye = story.between(ended, networking)
    last = story.between(networking, float("inf"))

    assert goodbye.frames(VM, PEER, Kind.IKE) > 0
    assert goodbye.grown("flows", "vm", "answered") > 0
    assert last.frames(VM, PEER, Kind.IKE) == 0
    assert last.grown("flows", "vm", "sent") == 0
    assert last.grown("flows", "vm", "refused", "EPERM") > 10
