"""Of which certificate an IKE_SA is: the notes outlive the agent, and belong to one charon."""

import os
import time
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.model import Connection
from ipsec_agent.core.observed import IkeSa, LoadedConnection
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.swanctl import fingerprint, set_mark
from ipsec_agent.host.made_with import MadeWith
from tests.configs import config
from tests.core.test_orphans import OWN, PROCESS, child_sa, ike_sa


def trap(key: str) -> Connection:
    """The trap of a config with this certificate."""
    found = desired(config(key=key), Placement(OWN, (OWN,))).connections
    return next(one for one in found if one.settings)


FIRST, SECOND = trap("aa"), trap("bb")
ONE = replace(ike_sa(1, child_sa(11, 100)), name=FIRST.name)
TWO = replace(ike_sa(2, child_sa(12, 200)), name=FIRST.name)


def marks(notes: MadeWith, connection: Connection, *sas: IkeSa) -> list[str]:
    """What is said of IKE_SAs while a connection is loaded so."""
    loaded = (LoadedConnection(connection.name, fingerprint(connection)),)
    return [sa.made_with for sa in notes.see(PROCESS, sas, loaded)]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """The file of a charon that began with the first certificate, and has the second now."""
    path = tmp_path / "made-with.json"
    notes = MadeWith(path)
    notes.begin(PROCESS)
    notes.loading(PROCESS, FIRST)
    assert marks(notes, FIRST, ONE) == [set_mark(fingerprint(FIRST))]
    notes.loading(PROCESS, SECOND)
    marks(notes, SECOND, ONE)
    assert marks(notes, SECOND, ONE, TWO) == [set_mark(fingerprint(it)) for it in (FIRST, SECOND)]
    return path


def test_it_outlives_the_agent(path: Path) -> None:
    """Another agent knows the same; what appeared meanwhile it does not know."""
    again = MadeWith(path)
    three = replace(ike_sa(3), name=FIRST.name)
    assert marks(again, SECOND, ONE, TWO, three) == [
        set_mark(fingerprint(FIRST)),
        set_mark(fingerprint(SECOND)),
        "",
    ]
    assert [one.mark for one in again.sets(PROCESS)] == [
        set_mark(fingerprint(it)) for it in (FIRST, SECOND)
    ]
    assert path.stat().st_mode & 0o777 == 0o600


def test_it_belongs_to_one_charon(path: Path) -> None:
    """Of another charon nothing is known, nor of one whose file is damaged or gone."""
    other = replace(PROCESS, started=PROCESS.started + 1)
    assert [one.mark for one in MadeWith(path).sets(other)] == [""]
    path.write_text("{")
    assert marks(MadeWith(path), SECOND, ONE) == [""]
    path.unlink()
    assert marks(MadeWith(path), SECOND, ONE) == [""]


def test_a_charon_that_somebody_else_started(tmp_path: Path) -> None:
    """It is new while it has nothing; one that has an SA, or a connection, is not."""
    notes = MadeWith(tmp_path / "made-with.json")
    assert notes.see(PROCESS, (), ()) == ()
    assert notes.sets(PROCESS) == ()
    other = MadeWith(tmp_path / "other.json")
    assert marks(other, FIRST) == []
    assert [one.mark for one in other.sets(PROCESS)] == [""]


def test_once_all_are_of_one(path: Path) -> None:
    """The history is forgotten, and whatever comes is of the one that is left."""
    again = MadeWith(path)
    marks(again, SECOND, TWO)
    assert [one.mark for one in again.sets(PROCESS)] == [set_mark(fingerprint(SECOND))]
    assert marks(MadeWith(path), SECOND, ONE) == [set_mark(fingerprint(SECOND))]


def test_a_full_disk_stops_nothing(tmp_path: Path) -> None:
    """What cannot be written is known as long as the agent lives."""
    notes = MadeWith(tmp_path / "none" / "made-with.json")
    notes.begin(PROCESS)
    notes.loading(PROCESS, FIRST)
    assert marks(notes, FIRST, ONE) == [set_mark(fingerprint(FIRST))]


@pytest.mark.parametrize("by", [86400.0, -86400.0])
def test_a_clock_that_was_set(path: Path, monkeypatch: pytest.MonkeyPatch, by: float) -> None:
    """What counts from when a set came, such as the end of a removed CA's SAs, is neither late nor
    early; the process is the same."""
    notes = MadeWith(path)
    marks(notes, SECOND, ONE, TWO)
    before = [one.since for one in notes.sets(PROCESS)]
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() + by)

    assert "" not in marks(notes, SECOND, ONE, TWO)

    after = [one.since for one in notes.sets(PROCESS)]
    assert [late - early for early, late in zip(before, after, strict=True)] == pytest.approx(
        [by, by], abs=10
    )
    assert [one.since for one in MadeWith(path).sets(PROCESS)] == after


def test_a_clock_that_was_set_back_meanwhile(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No agent ran then: no set can have come later than now."""
    real = time.time
    monkeypatch.setattr(time, "time", lambda: real() - 86400)
    notes = MadeWith(path)

    marks(notes, SECOND, ONE, TWO)

    assert all(one.since <= real() - 86400 for one in notes.sets(PROCESS))


@pytest.mark.parametrize(
    "damage",
    [
        b"",
        b"\xff",
        b'{"made": ' + b"[" * 100_000,
        b'{"later": ' + b"[" * 100_000 + b"]" * 100_000 + b"}",
        b'{"process": "1", "made": {"1": {"mark": "\xff"}}}',
    ],
    ids=("empty", "no text", "deep", "deep and later", "a mark that is no text"),
)
def test_damaged(tmp_path: Path, damage: bytes) -> None:
    """Whatever the file holds costs what it would have said, and no more."""
    path = tmp_path / "made-with.json"
    path.write_bytes(damage)

    assert marks(MadeWith(path), FIRST, ONE) == [""]


def test_a_pipe_in_its_place(tmp_path: Path) -> None:
    """Nobody is waited for."""
    path = tmp_path / "made-with.json"
    os.mkfifo(path)

    assert marks(MadeWith(path), FIRST, ONE) == [""]
