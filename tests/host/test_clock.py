"""What tells the time is read as it is, and what cannot be read is not known."""

import os
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.host import clock
from ipsec_agent.host.clock import NAME, ClockReader
from tests.configs import FACTS, config


@pytest.fixture
def rtc(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A hardware clock."""
    file = tmp_path / "since_epoch"
    monkeypatch.setattr(clock, "RTC", file)
    return file


def reader(tmp_path: Path) -> ClockReader:
    """A reader with its file there."""
    return ClockReader(config(agent=AgentConfig(state_dir=str(tmp_path))))


def test_read(rtc: Path, tmp_path: Path) -> None:
    """All that there is: own files, hardware clock, what was saved, the certificates' start."""
    rtc.write_text("1795808092\n")
    (tmp_path / NAME).write_text("1795800000\n")

    facts = reader(tmp_path).read()

    assert facts.built == Path(clock.__file__).stat().st_mtime
    assert (facts.rtc, facts.saved, facts.ours) == (1795808092.0, 1795800000.0, False)
    assert facts.begins == FACTS.not_before.timestamp()
    assert facts.ends == FACTS.not_after.timestamp()


@pytest.mark.parametrize("content", ["", "soon\n", "9" * 31, "9" * 14, "-1", "\0", "1e9"])
def test_damaged(content: str, rtc: Path, tmp_path: Path) -> None:
    """What is no number of seconds is nothing."""
    for file in (rtc, tmp_path / NAME):
        file.write_text(content)

    facts = reader(tmp_path).read()

    assert facts.rtc == facts.saved or content == "9" * 40
    assert facts.saved is None or content == "9" * 40


def test_saved(rtc: Path, tmp_path: Path) -> None:
    """For nobody else's eyes, whole; and for the next agent."""
    mine = reader(tmp_path)
    assert mine.read().saved is None
    mine.save(1795808092.7)

    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert mine.read().ours
    assert reader(tmp_path).read() == replace(mine.read(), saved=1795808093.0, ours=False)
    assert not rtc.exists()


def test_a_full_disk(tmp_path: Path) -> None:
    """What cannot be written is known all the same, and not tried again in each pass."""
    mine = reader(tmp_path / "gone")
    mine.save(1795808092.0)

    assert mine.read().saved == 1795808092.0
    assert list(tmp_path.iterdir()) == []


def test_another_config(tmp_path: Path) -> None:
    """Its certificates begin at another time."""
    mine = reader(tmp_path)
    mine.adopt(config(facts=replace(FACTS, not_before=FACTS.not_after)))

    assert mine.read().begins == FACTS.not_after.timestamp()


def test_no_file(rtc: Path, tmp_path: Path) -> None:
    """A FIFO would be waited for, for ever."""
    os.mkfifo(tmp_path / NAME)
    assert reader(tmp_path).read().saved is None
