"""Replaced again and again under floods: connections and certificates, and never a clear packet."""

import itertools
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipsec_agent.host.control_client import ask
from tests.charon.nodes import SCALE, until
from tests.lab import faults
from tests.lab.bed import BARE, Bed, bed
from tests.lab.floods import between
from tests.lab.judge import assert_only_esp
from tests.lab.matrix import LEAST
from tests.lab.truth import DELETE_POLICY, NEW_POLICY
from tests.lab.wire import Capture

pytestmark = [pytest.mark.long, pytest.mark.timeout(2400)]

TIMES = 500

LEAKING = 40
"""Replacements among which there is one that leaks if nothing guards it."""


@pytest.fixture
def bare(tmp_path: Path) -> Iterator[Bed]:
    """Two VMs under floods."""
    with bed(BARE, tmp_path) as ready:
        yield ready


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


def test_500_replacements(bare: Bed, record_property: Callable[[str, object], None]) -> None:
    """Each is a policy that the kernel deletes and adds; the moment between them is not seen."""
    with Capture(bare.hub, pairs=[(bare.one, bare.other)]) as capture:
        starts = {name: flood.read() for name, flood in bare.floods.items()}
        began = time.monotonic()
        for change in changes(TIMES):
            replaced(bare, change)
        flows = [between(start, bare.floods[name].read()) for name, start in starts.items()]
        seconds = time.monotonic() - began
        least = int(LEAST * bare.setting.rate * len(flows) * seconds)
        assert_only_esp(capture, bare.a.name, bare.one, bare.other, *flows, at_least=least)
        assert capture.clear() == {}
    lost = sum(flow.lost + flow.refused.get("EPERM", 0) for flow in flows)
    record_property("replacements", TIMES)
    print(  # noqa: T201 - it is to be shown
        f"\n{TIMES} replacements in {seconds:.0f} s under {sum(f.attempts for f in flows)} sends:"
        f" 0 clear packets, {lost} lost or refused by the guard"
    )
    assert lost == 0


def test_without_the_guard_replacements_leak(bare: Bed) -> None:
    """The same with the guard taken down: the capture convicts, and soon."""
    control = str(bare.a.run_dir / "control.sock")
    bare.settle()
    ask(control, "guard-down", deadline=10 * SCALE)
    with Capture(bare.hub, pairs=[(bare.one, bare.other)]) as capture:
        for change in changes(LEAKING):
            replaced(bare, change)
            if capture.clear():
                break
    assert capture.clear() != {}
