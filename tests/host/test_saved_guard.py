"""The table for the next boot is kept whole, readable, and gone when nobody wants it."""

import os
import stat
from pathlib import Path

import pytest

from ipsec_agent.errors import StartError
from ipsec_agent.host.saved_guard import forget_guard, save_guard, saved_guard


def test_saved_and_read(tmp_path: Path) -> None:
    """Readable for all, alone in its directory, which is made where it lacks."""
    path = tmp_path / "state" / "guard.nft"

    assert saved_guard(path) is None
    assert save_guard(path, "table inet one\n")

    assert saved_guard(path) == "table inet one\n"
    assert stat.S_IMODE(path.stat().st_mode) == 0o644
    assert [item.name for item in path.parent.iterdir()] == ["guard.nft"]


def test_the_same_text_is_not_written_again(tmp_path: Path) -> None:
    """Each pass may save it; the file stays the same one until the text differs."""
    path = tmp_path / "guard.nft"
    save_guard(path, "one")
    before = path.stat()

    assert not save_guard(path, "one")
    assert path.stat().st_ino == before.st_ino
    assert save_guard(path, "two")
    assert saved_guard(path) == "two"


def test_a_file_that_is_no_text_is_replaced(tmp_path: Path) -> None:
    """A damaged file reads as something else, and is mended."""
    path = tmp_path / "guard.nft"
    path.write_bytes(b"\xff\xfe\0")

    assert saved_guard(path) != "one"
    assert save_guard(path, "one")


@pytest.mark.parametrize("kind", ["fifo", "directory"])
def test_what_is_no_file(tmp_path: Path, kind: str) -> None:
    """Nobody waits for it; it is named, and what to do."""
    path = tmp_path / "guard.nft"
    os.mkfifo(path) if kind == "fifo" else path.mkdir()

    with pytest.raises(StartError, match=r"cannot read the saved guard .*guard\.nft: ") as refused:
        saved_guard(path)
    assert refused.value.hint == f"move {path} away"


def test_a_huge_file_is_replaced(tmp_path: Path) -> None:
    """What it holds is not read into memory."""
    path = tmp_path / "guard.nft"
    with path.open("wb") as file:
        file.truncate(1 << 40)

    assert save_guard(path, "one")
    assert saved_guard(path) == "one"


def test_where_it_cannot_be_written_the_old_one_stays(tmp_path: Path) -> None:
    """One sentence, and no half of a file."""
    path = tmp_path / "guard.nft"
    save_guard(path, "one")
    (tmp_path / f".guard.nft.{os.getpid()}").mkdir()

    with pytest.raises(StartError, match=r"cannot write .*guard\.nft: Is a directory"):
        save_guard(path, "two")

    assert saved_guard(path) == "one"


def test_forgotten(tmp_path: Path) -> None:
    """Gone, and gone already is no error."""
    path = tmp_path / "guard.nft"
    save_guard(path, "one")

    assert [forget_guard(path), forget_guard(path)] == [True, False]
    assert saved_guard(path) is None
