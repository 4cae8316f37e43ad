"""charon's pid, noted in a file that others read."""

from pathlib import Path

from ipsec_agent.host.process import note_pid, record_of


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
