"""Replaced again and again under floods: connections and certificates, and never a clear packet."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipsec_agent.host.control_client import ask
from tests.charon.nodes import SCALE, ip, until
from tests.lab import faults
from tests.lab.bed import BARE, LONG, Bed, bed
from tests.lab.floods import Flood, flood
from tests.lab.judge import assert_only_esp
from tests.lab.matrix import LEAST, REST
from tests.lab.truth import DELETE_POLICY, NEW_POLICY
from tests.lab.wire import Capture

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

TIMES = 500

SILENT = BARE.address(77)


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bed]:
    """Two VMs under floods."""
    with bed(BARE, tmp_path) as ready:
        yield ready


@pytest.fixture
def silent(bare: Bed) -> Iterator[Flood]:
    """A flood to an address that never answers.

    It has the trap and nothing else, where the others have their SAs' policies in front of it: what
    it sends while there is no trap is clear if nothing else stops it. Nobody asks by ARP.
    """
    neighbour = ("neigh", "add", SILENT, "lladdr", "02:00:00:00:00:99", "dev", "eth0")
    ip(*neighbour, netns=bare.a.name)
    with flood(bare.a.name, bare.b.name, SILENT, port=9005, seconds=LONG) as going:
        yield going


def replaced(ready: Bed, change: Callable[[Bed], None]) -> None:
    """Have the config changed, and wait for the kernel's word that the trap went and came."""
    seen = {DELETE_POLICY: 0, NEW_POLICY: 0}

    def both() -> bool:
        for kind, entry in ready.events.new():
            if (entry.selector, entry.direction) in traps and kind in seen:
                seen[kind] += 1
        return all(seen.values())

    traps = {
        (entry.selector, entry.direction)
        for entry in ready.traps()
        if entry.direction == 1 and entry.templates
    }
    assert len(traps) == 1
    change(ready)
    until(both, f"replaced, not only {seen}: {ready.a.log[-2000:]}", 5 * SCALE)
    assert set(seen.values()) == {1}


def changes(count: int) -> Iterator[Callable[[Bed], None]]:
    """Changes of the config, each of which replaces the connection."""
    turns = itertools.cycle(
        (
            faults.other_proposals,
            faults.first_config,
            faults.other_certificate,
            faults.first_config,
        )
    )
    return itertools.islice(turns, count)


def test_500_replacements(bare: Bed, silent: Flood, capsys: pytest.CaptureFixture[str]) -> None:
    """Each is a policy that the kernel deletes and adds; the moment between them is not seen."""
    everything = {**bare.floods, SILENT: silent}
    with Capture(bare.hub, pairs=[(bare.one, bare.other)]) as capture:
        starts = {name: one.read() for name, one in everything.items()}
        began = time.monotonic()
        for change in changes(TIMES):
            replaced(bare, change)
        # What was overtaken may still be under way.
        until(
            lambda: not any(one.since(starts[name]).lost for name, one in bare.floods.items()),
            "no datagram is lost",
            REST,
        )
        flows = {name: everything[name].since(start) for name, start in starts.items()}
        seconds = time.monotonic() - began
        least = int(LEAST * bare.setting.rate * len(flows) * seconds)
        ends = (bare.a.name, bare.one, bare.other)
        assert_only_esp(
            capture,
            *ends,
            *flows.values(),
            at_least=least,
            further=[(bare.one, SILENT, "eth0")],
        )
        assert capture.clear() == {}
    caught = flows.pop(SILENT).refused.get("EPERM", 0)
    lost = sum(flow.lost + flow.refused.get("EPERM", 0) for flow in flows.values())
    with capsys.disabled():
        print(  # noqa: T201 - it is to be shown
            f"\n{TIMES} replacements in {seconds:.0f} s: 0 clear packets; of those to a peer"
            f" without an SA the guard caught {caught}, of the others {lost} were lost"
        )
    assert lost == 0
    assert caught > 0, "no packet met a moment without a trap: it is no test"


@pytest.mark.usefixtures("silent")
def test_without_the_guard_replacements_leak(bare: Bed) -> None:
    """The same with the guard taken down: the capture convicts, and soon."""
    ask(str(bare.a.run_dir / "control.sock"), "guard-down", deadline=10 * SCALE)
    with Capture(bare.hub, pairs=[(bare.one, bare.other)]) as capture:
        for change in changes(TIMES):
            replaced(bare, change)
            if capture.clear():
                break
    assert set(capture.clear()) == {(bare.one, SILENT)}
