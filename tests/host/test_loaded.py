"""The record of what was loaded into charon is bound to one process."""

import json
import os
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.host.loaded import SPARE_LINES, LoadedRecord

ONE = CharonProcess(pid=1, started=10.5, memory=0, ours=True)
LEFT = Inherited(frozenset({7, 8}), frozenset({9}))


def test_fingerprints_and_inheritance(tmp_path: Path) -> None:
    """Both are kept side by side, and read by the next agent."""
    record = LoadedRecord(tmp_path / "loaded.json")
    record.inherit(ONE, LEFT)
    record.remember(ONE, "a", "x")
    record.remember(ONE, "b", "y")
    record.forget(ONE, "a")

    again = LoadedRecord(tmp_path / "loaded.json")
    assert again.fingerprints(ONE) == {"b": "y"}
    assert again.inherited(ONE) == LEFT
    assert (tmp_path / "loaded.json").stat().st_mode & 0o777 == 0o600


def test_another_charon(tmp_path: Path) -> None:
    """Of another process, also one with the same pid, nothing is known."""
    record = LoadedRecord(tmp_path / "loaded.json")
    record.inherit(ONE, LEFT)
    record.remember(ONE, "a", "x")

    other = replace(ONE, started=11.5)
    assert record.fingerprints(other) == {}
    assert record.inherited(other) == Inherited()


def test_a_clock_that_was_set(tmp_path: Path) -> None:
    """Its start is told by the clock of now, and it is the same all the same; a file of an earlier
    version has nothing else."""
    path = tmp_path / "loaded.json"
    born = replace(ONE, birth="boot-1-1050")
    LoadedRecord(path).remember(born, "a", "x")

    assert LoadedRecord(path).fingerprints(replace(born, started=99.5)) == {"a": "x"}
    assert LoadedRecord(path).fingerprints(replace(born, birth="boot-1-1051")) == {}
    path.write_text(json.dumps({"pid": 1, "started": 10.5, "connections": {"a": "x"}}))
    assert LoadedRecord(path).fingerprints(born) == {"a": "x"}
    assert LoadedRecord(path).fingerprints(replace(born, started=99.5)) == {}


def test_damaged(tmp_path: Path) -> None:
    """Whatever else the file holds costs one more load, and no more."""
    path = tmp_path / "loaded.json"
    whole = '{"pid": 1, "started": 10.5, "connections": {"a": "x"}}'
    for text in (
        *("", "[]", '{"pid": 1}', '{"pid": 1, "started": 10.5, "inherited": 3}', "{"),
        *(f"{whole}\n{line}" for line in ('["a", nu', "[]", "{}", "3", '["a", "y"]\n["b"')),
    ):
        path.write_text(text)
        assert LoadedRecord(path).fingerprints(ONE) == {}
        assert LoadedRecord(path).inherited(ONE) == Inherited()
    path.write_text(json.dumps({"pid": 1, "started": 10.5, "connections": {"a": "x"}}))
    assert LoadedRecord(path).fingerprints(ONE) == {"a": "x"}


def test_a_pipe_in_its_place(tmp_path: Path) -> None:
    """Nobody is waited for, and the next memory takes its place."""
    path = tmp_path / "loaded.json"
    os.mkfifo(path)
    record = LoadedRecord(path)

    assert record.fingerprints(ONE) == {}
    record.remember(ONE, "a", "x")
    assert LoadedRecord(path).fingerprints(ONE) == {"a": "x"}


def test_each_change_is_a_line(tmp_path: Path) -> None:
    """And not the whole file again, until there are many more of them than connections."""
    path = tmp_path / "loaded.json"
    record = LoadedRecord(path)
    for number in range(100):
        record.remember(ONE, f"c{number}", "x" * 100)
    whole, before = path.stat().st_ino, path.stat().st_size
    for number in range(20):
        record.forget(ONE, f"c{number}")
        record.remember(ONE, f"c{number}", f"again {number}")

    assert path.stat().st_ino == whole
    assert path.stat().st_size < before + 20 * 100
    assert LoadedRecord(path).fingerprints(ONE) == record.fingerprints(ONE)
    assert record.fingerprints(ONE)["c7"] == "again 7"

    for _ in range(200):
        record.remember(ONE, "c0", "y")
    assert len(path.read_text().splitlines()) <= 2 * 100 + SPARE_LINES
    assert LoadedRecord(path).fingerprints(ONE) == record.fingerprints(ONE)


def test_a_file_that_lacks_a_line_goes(tmp_path: Path) -> None:
    """It would call loaded what was forgotten and perhaps half changed."""
    path = tmp_path / "loaded.json"
    record = LoadedRecord(path)
    record.remember(ONE, "a", "x")
    path.unlink()
    path.symlink_to("/dev/full")

    record.forget(ONE, "a")

    assert not path.is_symlink()
    assert record.fingerprints(ONE) == {}
    record.remember(ONE, "a", "y")
    assert LoadedRecord(path).fingerprints(ONE) == {"a": "y"}
