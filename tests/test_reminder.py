"""The log of optional mode: it warns again after each interval, while it is on."""

from collections.abc import Iterator
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from ipsec_agent.reporter import Reporter
from tests.configs import config
from tests.core.test_optional import ON, loose_vm, with_clear
from tests.passes import quiet_pass
from tests.vm import NOW, PEER, Vm, healthy_vm

HOUR = 3600.0


@pytest.fixture
def log() -> Iterator[list[Any]]:
    """What is logged."""
    with capture_logs() as lines:
        yield lines


def passed(reporter: Reporter, vm: Vm, after: float) -> float:
    """Have a pass reported, some seconds later; seconds until another one is due."""
    later = vm.but(time=NOW + after)
    reporter.report(quiet_pass(later))
    return reporter.due


def said(log: list[Any]) -> list[str]:
    """The lines about optional mode that are new."""
    found = [line["event"] for line in log if line.get("code") == "optional-on"]
    log.clear()
    return found


def test_each_interval(log: list[Any]) -> None:
    """At first, an hour later, and never again once it is off; a pass is due for it."""
    reporter, vm = Reporter(), with_clear(loose_vm())

    assert passed(reporter, vm, 0) == HOUR
    assert said(log) == ["problem"]
    assert passed(reporter, vm, HOUR - 1) == 1
    assert said(log) == []
    assert passed(reporter, vm, HOUR) == HOUR
    assert str(PEER) in next(line["message"] for line in log if "message" in line)
    assert said(log) == ["problem lasts"]
    passed(reporter, healthy_vm(), HOUR + 1)
    assert said(log) == ["problem solved"]
    passed(reporter, healthy_vm(), 3 * HOUR)
    assert said(log) == []


def test_without_an_interval(log: list[Any]) -> None:
    """0 is for once."""
    reporter = Reporter()
    vm = loose_vm(replace(ON, optional_warn_interval=0.0))

    assert passed(reporter, vm, 0) > HOUR
    passed(reporter, vm, 9 * HOUR)
    assert said(log) == ["problem"]
    assert config().optional_warn_interval == 1
