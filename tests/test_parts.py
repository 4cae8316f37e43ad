"""scripts/test: every test belongs to a part that finds it, and what it is asked is understood."""

import re
import subprocess
from pathlib import Path

import pytest

from tests.data_files import ROOT

TESTS = ROOT / "tests"
FILES = sorted(TESTS.rglob("test_*.py"))
PARTS = (
    "unit",
    "lowest",
    "kernel",
    "guard",
    "charon",
    "monit",
    "repair",
    "fleet",
    "esp",
    "boot",
    "release",
    "mutations",
)
MARKED = {
    "kernel": "kernel",
    "charon": "charon",
    "monit": "charon",
    "fleet": "fleet",
    "boot": "boot",
    "release": "release",
}
"""Directories in which every module has this mark."""

MARKS = {"lab": {"kernel", "esp", "long"}, "mutations": {"mutation"}}
"""What marks a test there; one without is a unit test."""


LONG = {"charon": {"long"}}
"""What a part leaves out, unless --long is given."""


def script(*words: str) -> subprocess.CompletedProcess[str]:
    """Run scripts/test where it refuses or explains, so that no test runs in a test."""
    return subprocess.run(
        [ROOT / "scripts" / "test", *words], check=False, capture_output=True, text=True, timeout=30
    )


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(TESTS)))
def test_marks(path: Path) -> None:
    """A part looks into its own directories only, so that a mark elsewhere is never found."""
    text = path.read_text()
    marks = set(
        re.findall(r"pytest\.mark\.(kernel|charon|esp|long|fleet|boot|release|mutation)\b", text)
    )
    room = path.relative_to(TESTS).parts[0]
    if room in MARKED:
        assert marks - LONG.get(room, set()) == {MARKED[room]}
        assert re.search(rf"^pytestmark = \[?\s*pytest\.mark\.{MARKED[room]}\b", text, re.MULTILINE)
    else:
        assert marks <= MARKS.get(room, set())


def test_help() -> None:
    """It names every part and option."""
    done = script("--help")

    assert done.returncode == 0
    for word in (*(f"\n  {part} " for part in PARTS), "--long", "--help"):
        assert word in done.stdout


@pytest.mark.parametrize("words", [("unti",), ("unit", "tests/core"), ("kernel", "--log")])
def test_misunderstood(words: tuple[str, ...]) -> None:
    """What is neither a part nor pytest's is refused, with the parts that there are."""
    done = script(*words)

    assert done.returncode == 2
    assert f"there is no part '{words[-1]}'; the parts are: {' '.join(PARTS)}" in done.stderr
