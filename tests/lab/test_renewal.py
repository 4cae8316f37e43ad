"""After a charon or a whole VM died: traffic goes on, and what the dead one left is reaped."""

import functools
import os
import re
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import SCALE, Node, ip, network, until
from tests.lab.deployment import A, B, configure, double, hub_of, peer_of, start
from tests.lab.floods import flood
from tests.lab.judge import assert_only_esp
from tests.lab.namespaces import inside
from tests.lab.traffic import first_answer, ping
from tests.lab.wire import Capture

pytestmark = [pytest.mark.esp, pytest.mark.timeout(400)]


@pytest.fixture
def two(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two encrypting VMs that have spoken with each other."""
    with network(tmp_path, 2, "rn") as nodes:
        configure(nodes, [])
        start(nodes)
        first_answer(nodes[0], B)
        yield nodes[0], nodes[1]


def kernel_spis(node: Node) -> set[int]:
    """SPIs of the SAs in the kernel, without larval ones."""
    shown = ip("xfrm", "state", netns=node.name)
    return {int(spi, 16) for spi in re.findall(r"spi (0x[0-9a-f]+)", shown)} - {0}


def charons_spis(node: Node) -> set[int]:
    """SPIs of the CHILD_SAs that charon has."""
    shown = subprocess.run(
        ["swanctl", "--list-sas", "--raw", "--uri", f"unix://{node.run_dir}/charon.vici"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    ).stdout
    return {int(spi, 16) for spi in re.findall(r"spi-(?:in|out)=([0-9a-f]+)", shown)}


def halves(node: Node) -> bool:
    """Whether the kernel has the traps for both halves of the lab's subnet, and none for all."""
    there = " ".join(node.policies())
    return "10.9.0.128/25" in there and "10.9.0.0/25" in there and "10.9.0.0/24" not in there


def received(node: Node) -> int:
    """Packets that have come in on all its SAs, 0 while it starts."""
    return sum(peer["packets_in"] for peer in node.status().get("peers", ()))


@pytest.mark.long
def test_killed_charon_costs_no_packet(two: tuple[Node, Node]) -> None:
    """kill -9: the traffic goes on while the peer is renewed, and then the old SAs are gone.

    A peer that has answered sends on the new SA at once, while this VM installs it when the answer
    has come: what the peer sends in between is lost (strongSwan, child_create.c).
    """
    a, _ = two
    old = kernel_spis(a)
    assert len(old) == 2
    with Capture(hub_of(two)) as capture:
        count = int(100 * SCALE)
        with inside(a.name):
            echoes = subprocess.Popen(
                ["ping", "-n", "-q", "-i", "0.05", "-c", str(count), B],
                stdout=subprocess.PIPE,
                text=True,
            )
        began = time.monotonic()
        os.kill(a.charon_pid, signal.SIGKILL)
        until(lambda: charons_spis(a) and not kernel_spis(a) & old, "a's orphans are reaped")
        took = time.monotonic() - began
        shown, _ = echoes.communicate(timeout=120)
        flow = ping(a.name, B, 5)
        assert_only_esp(capture, a.name, A, B, flow, at_least=5, esp=2 * count)

    arrived = re.search(rf"{count} packets transmitted, (\d+) received", shown)
    assert arrived is not None, shown
    # 20 a second: at the most a quarter of a second in the guest.
    assert int(arrived[1]) >= count - 5, a.log[-3000:]
    assert took < 5 * SCALE
    assert kernel_spis(a) == charons_spis(a)
    assert a.settled()["policies"]["foreign"] == []


@pytest.mark.long
def test_states_flushed(two: tuple[Node, Node]) -> None:
    """`ip xfrm state flush`: charon's CHILD_SA ends, and the next packet makes another."""
    a, _ = two
    old = charons_spis(a)
    began = time.monotonic()
    ip("xfrm", "state", "flush", netns=a.name)

    until(lambda: not charons_spis(a) & old, "the CHILD_SA is ended")
    took = time.monotonic() - began
    first_answer(a, B)
    assert took < 3 * SCALE


@pytest.mark.long
@pytest.mark.parametrize(
    ("remembered", "changed", "limit"),
    [(True, False, 3.0), (True, True, 3.0), (False, False, 15.0)],
)
def test_crashed_vm(
    two: tuple[Node, Node], *, remembered: bool, changed: bool, limit: float
) -> None:
    """A VM that comes back gets its peer's one-way traffic: at once if it knows its peers.

    So it does where the SA that it had was older than the subnets of today.
    """
    a, b = two
    until((a.directory / "state" / "peers.json").exists, "the peer is written down")
    if changed:
        configure(two, [], ["10.9.0.0/25", "10.9.0.128/25"])
        for node in two:
            assert node.ask("reload").returncode == 0
            until(functools.partial(halves, node), "the traps of both halves", 5 * SCALE)
    with (
        Capture(hub_of(two)) as capture,
        flood(b.name, a.name, A, rate=100, seconds=60 + 10 * SCALE) as running,
    ):
        a.end_agent(signal.SIGKILL)
        os.kill(a.charon_pid, signal.SIGKILL)
        for what in ("policy", "state"):
            ip("xfrm", what, "flush", netns=a.name)
        if not remembered:
            (a.directory / "state" / "peers.json").unlink()
        a.start()
        until(lambda: len(a.policies()) >= 2, "a's traps are there", 60 * SCALE)
        began = time.monotonic()
        until(lambda: received(a) > 0, "traffic flows again", 20 * SCALE)
        took = time.monotonic() - began
        flow = running.end()
        assert_only_esp(capture, a.name, A, B, flow, at_least=100)

    assert took < limit * (SCALE if remembered else 1 + SCALE / 3)


@pytest.mark.long
def test_duplicates_end(two: tuple[Node, Node]) -> None:
    """More than one CHILD_SA: one is left, and not an echo was lost on the way."""
    a, b = two
    double(a, A, B)
    double(b, B, A)
    twice = until(lambda: peer_of(a, B)["duplicates"], "duplicates are named")
    count = 400
    with inside(a.name):
        echoes = subprocess.Popen(
            ["ping", "-n", "-q", "-i", "0.1", "-c", str(count), B],
            stdout=subprocess.PIPE,
            text=True,
        )
    until(lambda: len(charons_spis(a)) == 2, "no duplicate is left", 60 + SCALE)
    shown, _ = echoes.communicate(timeout=120)

    assert f"{count} packets transmitted, {count} received" in shown, (twice, a.log[-3000:])
