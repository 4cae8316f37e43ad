"""What may be replaced by a file that an operator wants to be written."""

import os
import socket
from pathlib import Path

import pytest

from ipsec_agent.errors import StartError
from ipsec_agent.host import output_file as module
from ipsec_agent.host.output_file import output_file


def fifo(path: Path) -> None:
    """A pipe with a name."""
    os.mkfifo(path)


def listener(path: Path) -> None:
    """A UNIX socket."""
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(path))


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (fifo, "it is a pipe"),
        (listener, "it is a socket"),
        (Path.mkdir, "it is a directory"),
        (lambda path: path.symlink_to("/dev/null"), "it is a device"),
        (lambda path: path.symlink_to(path), "Too many levels of symbolic links"),
    ],
    ids=["fifo", "socket", "directory", "link to a device", "link to itself"],
)
def test_what_is_no_file(tmp_path: Path, make: object, says: str) -> None:
    """It stays, and one sentence says what it is."""
    path = tmp_path / "report.html"
    make(path)  # type: ignore[operator]
    before = kept(path)

    with pytest.raises(StartError, match=says) as found:
        output_file(str(path), "--html")

    assert found.value.hint.startswith("give --html")
    assert kept(path) == before


def kept(path: Path) -> tuple[int, ...]:
    """What would differ of another file in its place; not when it was last read."""
    found = path.lstat()
    return (found.st_ino, found.st_mode, found.st_size, found.st_mtime_ns)


def test_a_device() -> None:
    """As root it would be replaced by a file."""
    with pytest.raises(StartError, match="/dev/null: it is a device"):
        output_file("/dev/null", "--html")


def test_files(tmp_path: Path) -> None:
    """One that is there, and one that is not."""
    (tmp_path / "there").write_text("old")

    assert output_file(str(tmp_path / "there"), "--html") == tmp_path / "there"
    assert output_file(str(tmp_path / "new"), "--html") == tmp_path / "new"


def test_a_link_stays(tmp_path: Path) -> None:
    """What it leads to is written, also where that is not there yet, by several steps."""
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to(tmp_path / "place" / "c")

    assert output_file(str(tmp_path / "a"), "--html") == tmp_path / "place" / "c"


def test_a_link_of_another_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In /tmp anybody could have root replace any file by it."""
    (tmp_path / "a").symlink_to("/etc/hostname")
    monkeypatch.setattr(module, "trusted", lambda _uid: False)

    with pytest.raises(StartError, match="a symbolic link of another user's"):
        output_file(str(tmp_path / "a"), "--html")
