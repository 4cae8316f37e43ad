"""The verb `health`: short, with what monit matches in front, and never kinder than the status."""

import json
import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.health_answer import LONGEST, PATIENCE, health_answer
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.status import Snapshot, State
from tests.core.test_status import VM, snapshot

GOOD = snapshot(VM)
LIMIT = VM.config.prestart_timeout + 2 * VM.config.agent.interval + PATIENCE


def answer(found: Snapshot | None, since: float = 1.0) -> str:
    """The line as the control socket sends it."""
    return json.dumps({"ok": True, **health_answer(VM.config, found, since)})


def with_problems(*severities: Severity, message: str = "a sentence") -> Snapshot:
    """A snapshot with a problem of each severity."""
    problems = tuple(Problem(f"code-{each}", each, message, "a hint") for each in severities)
    return replace(GOOD, state=State.DEGRADED, problems=problems)


def test_good() -> None:
    """All is well: each of the three things that monit matches says so."""
    assert answer(GOOD) == (
        '{"ok": true, "alive": true, "healthy": true, "state": "running", "worst": "none",'
        ' "reason": ""}'
    )


def test_starting() -> None:
    """Before the first pass has ended the agent is alive and not yet healthy."""
    assert '"alive": true, "healthy": false, "state": "starting"' in answer(None)


@pytest.mark.parametrize("found", [GOOD, None])
def test_hung_loop(found: Snapshot | None) -> None:
    """A loop that ended no pass for too long is not alive, whatever its last pass saw."""
    assert '"alive": true' in answer(found, LIMIT)
    late = answer(found, LIMIT + 1)
    assert '"alive": false, "healthy": false' in late
    assert f"no pass has finished for {LIMIT + 1:.0f} s" in late


def test_loudest_is_named() -> None:
    """Of several problems the loudest is told, wherever it stands."""
    said = answer(with_problems(Severity.WARNING, Severity.CRITICAL, Severity.INFO))
    assert '"worst": "critical", "reason": "code-critical: a sentence"' in said


@given(st.sampled_from(Severity), st.text(max_size=2000))
def test_short_and_not_to_be_forged(severity: Severity, message: str) -> None:
    """Whatever a message holds, the line fits monit's buffer, and no word in it passes for good."""
    said = answer(with_problems(severity, message=message + '"healthy": true, "worst": "none"'))

    assert len(said.encode() + b"\n") <= LONGEST
    assert '"reason": "code-' in said
    assert '"healthy": true' not in said
    assert re.search('"worst": "(none|info|warning)"', said) is None or severity in {
        Severity.INFO,
        Severity.WARNING,
    }
