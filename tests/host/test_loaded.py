"""The record of what was loaded into charon is bound to one process."""

import json
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.core.observed import CharonProcess, Inherited
from ipsec_agent.host.loaded import LoadedRecord

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


def test_damaged(tmp_path: Path) -> None:
    """Whatever else the file holds costs one more load, and no more."""
    path = tmp_path / "loaded.json"
    for text in ("", "[]", '{"pid": 1}', '{"pid": 1, "started": 10.5, "inherited": 3}', "{"):
        path.write_text(text)
        assert LoadedRecord(path).fingerprints(ONE) == {}
        assert LoadedRecord(path).inherited(ONE) == Inherited()
    path.write_text(json.dumps({"pid": 1, "started": 10.5, "connections": {"a": "x"}}))
    assert LoadedRecord(path).fingerprints(ONE) == {"a": "x"}
