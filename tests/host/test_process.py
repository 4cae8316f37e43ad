"""charon's pid, noted in a file that others read."""

import os
from pathlib import Path

import psutil
import pytest

from ipsec_agent.host.process import facts, note_pid, record_of


def test_the_pid_is_written_whole(tmp_path: Path) -> None:
    """Who reads the file while another charon starts, such as monit, finds a pid all the same."""
    conf = tmp_path / "strongswan.conf"
    note_pid(conf, 111)

    with record_of(conf).open() as reader:
        note_pid(conf, 222)
        assert reader.read() == "111\n"

    assert record_of(conf).read_text() == "222\n"


def test_a_full_disk(tmp_path: Path) -> None:
    """Where it cannot be noted charon runs on; it is found by its socket."""
    conf = tmp_path / "gone" / "strongswan.conf"

    note_pid(conf, 111)

    assert not record_of(conf).exists()


def test_a_process_stays_the_same_where_the_clock_is_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel tells when it started by the clock of now; that makes no other process of it."""
    before = facts(os.getpid(), tmp_path / "strongswan.conf")
    began = psutil.Process().create_time()
    monkeypatch.setattr(psutil.Process, "create_time", lambda _process: began + 3600)
    after = facts(os.getpid(), tmp_path / "strongswan.conf")

    assert before
    assert after
    assert after.started == before.started + 3600
    assert after.identity == before.identity
    parent = facts(os.getppid(), tmp_path / "strongswan.conf")
    assert parent
    assert parent.identity != before.identity
