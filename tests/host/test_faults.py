"""The file of faults with peers."""

import json
import math
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from msgspec.structs import replace
from structlog.testing import capture_logs

from ipsec_agent.core.charon_log import HINTS
from ipsec_agent.core.health import Memory
from ipsec_agent.core.problems.charon import PEER_CODES, SILENT
from ipsec_agent.core.problems.kept_faults import EACH, KEPT, Kept
from ipsec_agent.core.problems.optional import ClearTalk
from ipsec_agent.core.problems.peer_faults import MOST, Fault, Hearing, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.host import faults
from ipsec_agent.host.faults import LARGEST, LONGEST, FaultFile
from ipsec_agent.host.files import write_whole
from ipsec_agent.reporter import Reporter
from tests.examples import examples
from tests.host.mutate import documents, texts
from tests.vm import NOW, healthy_vm


def suspect(peer: str = "10.0.0.9", text: str = "it failed", time: float = NOW - 50) -> Suspect:
    """A peer that has refused, and is silent since."""
    return Suspect(
        peer,
        tuple(
            Fault(LogLine(code, text, peer, HINTS[code], time), time - 20)
            for code in ("peer-refuses-us", SILENT)
        ),
        Hearing(time, time - 900, time - 800, time - 5),
        time - 10,
        time - 5,
        time - 7,
    )


class Clock:
    """The time, which the test moves."""

    now = NOW

    def time(self) -> float:
        """Seconds since the epoch."""
        return self.now


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    """The clock of the file."""
    found = Clock()
    monkeypatch.setattr(faults, "time", found)
    return found


@pytest.fixture
def writings(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Each writing."""
    found: list[Path] = []

    def counted(path: Path, text: str, *, mode: int) -> None:
        found.append(path)
        write_whole(path, text, mode=mode)

    monkeypatch.setattr(faults, "write_whole", counted)
    return found


def test_written_and_read(tmp_path: Path, clock: Clock) -> None:
    """The next agent knows all of it, but that it has looked for nobody yet; nobody else may."""
    path = tmp_path / "faults.json"
    memory = (suspect(), suspect("fd00::9"))
    FaultFile(path).keep(Kept(memory))
    clock.now += 5

    found = FaultFile(path).read().suspects

    assert [one.watched for one in found] == [NOW + 5, NOW + 5]
    assert [(one.peer, one.faults, one.heard, one.seen, one.unanswered) for one in found] == [
        (one.peer, one.faults, one.heard, one.seen, one.unanswered) for one in memory
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def talk(peer: str = "10.0.0.9", last: float = NOW - 50, *, heard: bool = True) -> ClearTalk:
    """A peer with which packets pass in clear."""
    return ClearTalk(ip_address(peer), NOW - 9e5, last, "out", 7, NOW - 9e6, heard, last + 3600)


def test_who_speaks_clear(tmp_path: Path, clock: Clock, writings: list[Path]) -> None:
    """Written as the rest is, once an hour at the most while nobody is new, and taken up."""
    file = FaultFile(tmp_path / "faults.json")
    hour = NOW // 3600 * 3600
    for second in range(0, 3600, 60):
        clock.now = hour + second
        file.keep(Kept(talks=(talk(last=hour + second), talk("fd00::9", hour, heard=False))))
    assert len(writings) == 1
    clock.now = hour + 3600
    talks = (talk(last=hour + 3600), talk("fd00::9", hour, heard=False))
    file.keep(Kept(talks=talks))
    assert len(writings) == 2

    clock.now += 9000
    found = FaultFile(tmp_path / "faults.json").read().talks
    assert found == tuple(replace(one, until=clock.now + 3600) for one in talks)


def test_many_faults_of_one_peer(tmp_path: Path, clock: Clock) -> None:
    """One of each kind is taken up, the last, with its beginning; how many more there were is
    told."""
    path = tmp_path / "faults.json"
    faults = [[CODE, f"it failed at {n}", NOW - n, NOW - 2 * n] for n in range(500)]
    path.write_text(json.dumps({**DOCUMENT, "peers": [{**DOCUMENT["peers"][0], "faults": faults}]}))

    found = FaultFile(path).read()

    assert found.left_out == 499
    (fault,) = found.suspects[0].faults
    assert (fault.line.text, fault.line.time, fault.first) == ("it failed at 0", NOW, NOW - 998)
    reporter = Reporter()
    with capture_logs() as log:
        reporter.resume(found)
    assert [line["out"] for line in log] == [499]


ODD_TALKS: tuple[tuple[str, tuple[Any, ...]], ...] = (
    ("peer", ("", "fe80::1%eth0", None, [])),
    ("since", (-1, math.inf, "1", None)),
    ("packets", (-1, "7", None, math.nan)),
    ("way", ("", None, [], "sideways")),
)


@pytest.mark.parametrize("odd", [{key: value} for key, values in ODD_TALKS for value in values])
def test_a_talk_that_is_none_of_ours(tmp_path: Path, clock: Clock, odd: dict[str, Any]) -> None:
    """It costs neither another one nor a fault."""
    path = tmp_path / "faults.json"
    FaultFile(path).keep(Kept((suspect(),), (talk(), talk("fd00::9"))))
    written = json.loads(path.read_text())
    first, second = written["clear"]
    path.write_text(json.dumps({**written, "clear": [{**first, **odd}, second]}))

    found = FaultFile(path).read()

    assert [str(one.address) for one in found.talks] == ["fd00::9"]
    assert len(found.suspects) == 1
    path.write_text(json.dumps({**written, "clear": odd}))
    assert FaultFile(path).read() == Kept(found.suspects)


def test_written_when_something_is_new(tmp_path: Path, clock: Clock, writings: list[Path]) -> None:
    """Not by each pass, nor by each attempt; what an agent that ends still has is written."""
    file = FaultFile(tmp_path / "faults.json")
    file.keep(Kept())
    assert writings == []
    for _ in range(20):
        file.keep(Kept((suspect(),)))
    assert len(writings) == 1

    for second in range(int(EACH)):
        clock.now = NOW + second
        file.keep(Kept((suspect(time=NOW + second),)))
    assert len(writings) == 1
    file.keep(Kept((suspect(time=NOW + EACH - 1),)), at_once=True)
    file.keep(Kept((suspect(time=NOW + EACH - 1),)), at_once=True)
    assert len(writings) == 2

    again = FaultFile(tmp_path / "faults.json")
    clock.now = NOW + 2 * EACH
    again.keep(again.read())
    assert len(writings) == 2
    again.keep(Kept())
    assert len(writings) == 3
    assert FaultFile(tmp_path / "faults.json").read() == Kept()


def test_a_disk_that_is_full_stops_nothing(
    tmp_path: Path, clock: Clock, writings: list[Path]
) -> None:
    """It is tried again, though not by each pass."""
    file = FaultFile(tmp_path / "later" / "faults.json")
    for _ in range(5):
        file.keep(Kept((suspect(),)))
    assert len(writings) == 1

    (tmp_path / "later").mkdir()
    clock.now += EACH
    file.keep(Kept((suspect(),)))
    assert [one.peer for one in FaultFile(tmp_path / "later" / "faults.json").read().suspects] == [
        "10.0.0.9"
    ]


def test_all_that_is_written_is_read(tmp_path: Path, clock: Clock) -> None:
    """Of as many peers as are remembered those that failed last, with lines of any length."""
    codes = sorted({*PEER_CODES, SILENT})
    long = "\N{SNOWMAN}" * 9000
    crowd = tuple(
        Suspect(
            peer := f"fd00:1111:2222:3333:4444:5555:6666:{number:x}",
            tuple(Fault(LogLine(code, long, peer, HINTS[code], NOW), NOW) for code in codes),
        )
        for number in range(MOST)
    )
    path = tmp_path / "faults.json"

    FaultFile(path).keep(Kept(crowd))

    assert path.stat().st_size < LARGEST
    found = FaultFile(path).read().suspects
    assert [one.peer for one in found] == [one.peer for one in crowd[:KEPT]]
    assert {len(fault.line.text) for one in found for fault in one.faults} == {LONGEST}


DOCUMENT: dict[str, Any] = {
    "written": NOW,
    "peers": [
        {
            "peer": peer,
            "heard": [NOW, 0.0, NOW - 10],
            "seen": 0.0,
            "unanswered": NOW,
            "watched": 0.0,
            "faults": [["peer-refuses-us", "it failed", NOW, NOW]],
        }
        for peer in ("10.0.0.9", "10.0.0.10")
    ],
}


def taken_up(path: Path) -> list[str]:
    """The peers of a file; a pass and its problems are made of them, too."""
    memory = FaultFile(path).read().suspects
    vm = healthy_vm().but(time=NOW + 500)
    found = vm.assess(Memory(suspects=memory), heard={one.peer: one.heard for one in memory})
    for problem in found.problems:
        problem.message.encode()
    return [one.peer for one in memory]


@given(text=texts(DOCUMENT))
@settings(max_examples=examples(100), deadline=None)
def test_a_damaged_file_is_no_harm(text: str, tmp_path_factory: pytest.TempPathFactory) -> None:
    """Nothing is raised, neither by the reading nor by what is made of it."""
    path = tmp_path_factory.getbasetemp() / "damaged.json"
    path.write_text(text, errors="replace")

    taken_up(path)


@given(first=documents(DOCUMENT["peers"][0]))
@settings(max_examples=examples(60), deadline=None)
def test_a_damaged_entry_costs_no_other(
    first: Any, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """The other peers are known."""
    path = tmp_path_factory.getbasetemp() / "entry.json"
    path.write_text(json.dumps({**DOCUMENT, "peers": [first, DOCUMENT["peers"][1]]}))

    assert "10.0.0.10" in taken_up(path)


CODE = "peer-refuses-us"


@pytest.mark.parametrize(
    "odd",
    [
        *({"peer": peer} for peer in ("", "10.0.0.300", "fe80::1%eth0", None)),
        *({"seen": time} for time in (-1, math.nan, math.inf, 1e300, "1", None)),
        *({"heard": times} for times in ([], [1, 2], [1, 2, 3, 4], [1, 2, -3])),
        *(
            {"faults": faults}
            for faults in ([], [["kernel-refuses", "x", 1, 1]], [[CODE, 5, 1, 1]])
        ),
        *(
            {"faults": [[CODE, *rest]]}
            for rest in (["\ud800", 1, 1], ["x", -1, 1], ["x", 1, 1e300])
        ),
    ],
)
def test_what_is_none_of_ours(tmp_path: Path, odd: dict[str, Any]) -> None:
    """An entry that could not be shown, or not be counted with, is left out."""
    path = tmp_path / "faults.json"
    first, second = DOCUMENT["peers"]
    path.write_text(json.dumps({**DOCUMENT, "peers": [{**first, **odd}, second]}))

    assert taken_up(path) == ["10.0.0.10"]


def test_the_file_may_be_missing(tmp_path: Path) -> None:
    """As at the first start."""
    assert FaultFile(tmp_path / "faults.json").read() == Kept()
