"""Outages over looks, steps of the clock, and restarts of the agent."""

import time
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.core.problems.peer_faults import Suspect
from ipsec_agent.core.status import Snapshot, State, document
from ipsec_agent.history import History
from ipsec_agent.reconcile import Reconciler
from tests.configs import config
from tests.core.test_outages import SUSPECT
from tests.core.test_status import snapshot
from tests.fakes import FakeMachine, network
from tests.vm import NOW, healthy_vm

VM = healthy_vm()
YEAR = 365 * 86_400.0


class Clocks:
    """That of the wall, and the steady one."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall, self.steady = NOW, 50.0
        monkeypatch.setattr(time, "time", lambda: self.wall)
        monkeypatch.setattr(time, "monotonic", lambda: self.steady)

    def on(self, seconds: float) -> None:
        """Time passes."""
        self.wall += seconds
        self.steady += seconds

    def look(self, *suspects: Suspect, **more: Any) -> Snapshot:
        """What a pass leaves of now."""
        return replace(snapshot(VM.but(time=self.wall)), suspects=suspects, **more)


def started(path: Path) -> History:
    """An agent's history."""
    return History(
        Reconciler(FakeMachine(network("10.0.0.5")), config(), lambda _: None), str(path)
    )


def shown(found: History, seen: Snapshot) -> list[dict[str, Any]]:
    """What the status says."""
    told: list[dict[str, Any]] = document(found.complete(seen))["outages"]
    return told


def test_a_night(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cut, a clock that is set ahead and back, a restart within the cut, and its end."""
    clocks = Clocks(monkeypatch)
    found = started(tmp_path)
    found.follow(clocks.look())
    assert shown(found, clocks.look()) == []
    clocks.on(10)
    found.follow(clocks.look(SUSPECT))
    (one,) = shown(found, clocks.look())
    assert (one["peer"], one["begin"], one["end"]) == ("10.0.0.9", NOW - 100, None)

    for by in (YEAR, -YEAR):
        clocks.on(10)
        clocks.wall += by
        found.follow(clocks.look(SUSPECT))
        (one,) = shown(found, clocks.look())
        assert clocks.wall - one["begin"] == pytest.approx(clocks.steady - 50 + 100)

    found.close()
    clocks.on(300)
    found = started(tmp_path)
    found.follow(clocks.look(state=State.STARTING))
    found.follow(clocks.look(SUSPECT))
    (one,) = shown(found, clocks.look())
    assert (one["begin"], one["end"]) == (NOW - 100, None)
    clocks.on(50)
    found.follow(clocks.look())
    (one,) = shown(found, clocks.look())
    assert one["end"] == clocks.wall


def test_a_restart_and_a_step_make_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing failed before, in between, or after."""
    clocks = Clocks(monkeypatch)
    for by in (0.0, YEAR, -YEAR):
        found = started(tmp_path)
        found.follow(clocks.look())
        clocks.on(5)
        clocks.wall += by
        found.follow(clocks.look())
        assert shown(found, clocks.look()) == []
        found.close()
        clocks.on(3600)


def test_while_ipsec_is_optional(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Packets pass in clear: nobody is cut off, and what lasted is over."""
    clocks = Clocks(monkeypatch)
    found = started(tmp_path)
    found.follow(clocks.look(SUSPECT))
    clocks.on(10)
    found.follow(clocks.look(SUSPECT, config=replace(VM.config, optional=True)))
    (one,) = shown(found, clocks.look())
    assert one["end"] == clocks.wall
