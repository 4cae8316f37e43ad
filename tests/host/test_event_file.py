"""The file of events."""

import json
from pathlib import Path

import pytest

from ipsec_agent.core.events import LONGEST, MOST, Event, EventKind
from ipsec_agent.core.problems.kept_faults import Kept
from ipsec_agent.host import event_file
from ipsec_agent.host.event_file import EACH, EventFile
from ipsec_agent.reporter import Reporter
from tests.core.test_status import states
from tests.passes import quiet_pass
from tests.vm import NOW, Vm, healthy_vm, with_sa

EVENTS = (
    Event(EventKind.START, "the agent has started", "", NOW, NOW - 9, 3),
    Event(EventKind.LOST, "no SA any more with 10.0.0.9", "10.0.0.9", NOW, NOW, 1, "10.0.0.9"),
)


class Clock:
    """The time since the boot, which the test moves."""

    now = 100.0

    def monotonic(self) -> float:
        """Seconds."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the file."""
    found = Clock()
    monkeypatch.setattr(event_file, "time", found)
    return found


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the file is."""
    return tmp_path / "events.json"


def test_kept(path: Path) -> None:
    """The next agent reads what was written, and nobody else does."""
    EventFile(path).keep(EVENTS)

    assert EventFile(path).read() == EVENTS
    assert path.stat().st_mode & 0o777 == 0o600
    assert EventFile(path.with_name("none")).read() == ()


def test_written_seldom(path: Path, clock: Clock) -> None:
    """Only news is written, once in a while; the last word always is."""
    file = EventFile(path)
    file.keep(EVENTS[:1])
    path.unlink()
    clock.now += 2 * EACH
    file.keep(EVENTS[:1])
    assert not path.exists()
    file.keep(EVENTS)
    assert EventFile(path).read() == EVENTS
    clock.now += EACH / 2
    file.keep(EVENTS[:1])
    assert EventFile(path).read() == EVENTS
    file.keep(EVENTS[1:], at_once=True)
    assert EventFile(path).read() == EVENTS[1:]


def test_full_disk(path: Path, clock: Clock) -> None:
    """It stops nothing, and is tried again."""
    file = EventFile(path / "of" / "nobody")
    file.keep(EVENTS)
    clock.now += EACH
    (path / "of").mkdir(parents=True)
    file.keep(EVENTS)

    assert EventFile(path / "of" / "nobody").read() == EVENTS


@pytest.mark.parametrize(
    "text",
    [
        "",
        "{",
        "[]",
        "null",
        '{"events": []}',
        "[1, null, {}]",
        '["\\ud800"]',
        "[[[[",
        "\0",
        "9" * 5000,
    ],
)
def test_broken(path: Path, text: str) -> None:
    """A file that says nothing is one without events."""
    path.write_text(text)

    assert EventFile(path).read() == ()


@pytest.mark.parametrize(
    "change",
    [
        {"kind": "other"},
        {"time": -1},
        {"time": 1e300},
        {"time": "now"},
        {"since": NOW + 1},
        {"count": 0},
        {"count": 10**30},
        {"text": "x" * (LONGEST + 1)},
        {"subject": None},
        {"peer": 7},
    ],
)
def test_broken_entry(path: Path, change: dict[str, object]) -> None:
    """It costs only what it would have said."""
    EventFile(path).keep(EVENTS)
    first, second = json.loads(path.read_text())
    path.write_text(json.dumps([{**first, **change}, second]))

    assert EventFile(path).read() == EVENTS[1:]


def test_reported(path: Path) -> None:
    """Each look's snapshot has them; what was open when the agent ended is not told again."""
    vm = with_sa(healthy_vm()).but(states=states(1, 1))
    ill = vm.but(charon=None, states=(), time=NOW + 10)

    def kinds(reporter: Reporter, *looks: Vm) -> list[str]:
        events = [reporter.report(quiet_pass(look)).events for look in looks][-1]
        EventFile(path).keep(events)
        return [one.kind.value for one in events]

    assert kinds(Reporter(), vm, vm, ill) == ["start", "problem", "peer-lost"]
    again = Reporter()
    again.resume(Kept(), EventFile(path).read())
    assert kinds(again, ill) == ["problem", "peer-lost", "start"]


def test_too_many(path: Path) -> None:
    """The newest are read."""
    EventFile(path).keep(EVENTS[:1] * MOST + EVENTS[1:])

    assert EventFile(path).read() == EVENTS[:1] * (MOST - 1) + EVENTS[1:]


def test_a_path_that_is_no_utf_8(path: Path) -> None:
    """It is written as an operator can read it, and nothing raises: the agent would end."""
    odd = Event(EventKind.REFUSED, "there is no config at /etc/\udcff", "\ud800", NOW, NOW)

    EventFile(path).keep((odd,))

    (kept,) = EventFile(path).read()
    assert (kept.text, kept.subject) == ("there is no config at /etc/\\xff", "\\ud800")
