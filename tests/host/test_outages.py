"""The file of outages: what outlives the agent, and what a broken file costs."""

import json
from ipaddress import ip_address
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.outages import Outage
from ipsec_agent.host import outages
from ipsec_agent.host.outages import EACH, OutageFile
from tests.vm import NOW, PEER

OVER = Outage(PEER, NOW, NOW + 60, "peer-silent", "10.0.0.9 does not answer IKE")
LASTS = Outage(ip_address("10.0.0.7"), NOW + 30, 0.0, "peer-esp-lost", "no ESP comes back")


def test_outlives_the_agent(tmp_path: Path) -> None:
    """It is as it was, and nobody else may read it."""
    path = tmp_path / "outages.json"
    OutageFile(path).keep((OVER, LASTS))

    assert OutageFile(path).read()[1] == (OVER, LASTS)
    assert path.stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"written": 1}', '{"written": NaN, "outages": []}', "\x00", "7"]
)
def test_a_broken_file(tmp_path: Path, text: str) -> None:
    """It says nothing."""
    path = tmp_path / "outages.json"
    path.write_text(text)
    assert OutageFile(path).read() == (0.0, ())
    assert OutageFile(tmp_path / "none").read() == (0.0, ())


def test_a_broken_entry(tmp_path: Path) -> None:
    """It costs only itself."""
    path = tmp_path / "outages.json"
    OutageFile(path).keep((OVER, LASTS))
    document = json.loads(path.read_text())
    good = document["outages"][1]
    broken = [{**good, "begin": -1}, {**good, "peer": "x"}, {**good, "end": 1}, {}, None, 7]
    path.write_text(json.dumps({**document, "outages": [*broken, good]}))

    assert OutageFile(path).read()[1] == (LASTS,)


def test_when_it_is_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where something is new, or one lasts, once a minute; at the end at once."""
    path, now, written = tmp_path / "outages.json", [1000.0], []
    monkeypatch.setattr("time.monotonic", lambda: now[0])
    monkeypatch.setattr(outages, "write_whole", lambda *_, **__: written.append(now[0]))
    file = OutageFile(path)

    for memory, at_once in (
        ((), False),  # nothing is new
        ((OVER,), False),
        ((OVER,), False),
        ((OVER, LASTS), False),  # too soon
        ((OVER, LASTS), True),
    ):
        file.keep(memory, at_once=at_once)
    assert written == [1000.0, 1000.0]
    now[0] += EACH
    file.keep((OVER, LASTS))
    file.keep((OVER, LASTS))
    assert written == [1000.0, 1000.0, 1000.0 + EACH]
    now[0] += EACH
    file.keep((OVER, replace(LASTS, end=NOW + 90)))
    file.keep((OVER, replace(LASTS, end=NOW + 90)))
    assert len(written) == 4


def test_a_full_disk(tmp_path: Path) -> None:
    """It stops nothing."""
    OutageFile(tmp_path / "none" / "outages.json").keep((OVER,))
