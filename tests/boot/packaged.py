"""The Debian package, built of this tree and of the version before it."""

import shutil
import subprocess
from pathlib import Path

from tests.data_files import ROOT

BUILT_WITHIN = 300.0


def output(*words: str, cwd: Path = ROOT, deadline: float = 60) -> str:
    """What a program prints; it must succeed."""
    done = subprocess.run(
        words, check=False, cwd=cwd, capture_output=True, text=True, timeout=deadline
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def _git(*words: str) -> str:
    return output("git", "-c", "safe.directory=*", *words).strip()


def build(place: Path) -> None:
    """Build the package of this tree."""
    output("scripts/package", str(place), deadline=BUILT_WITHIN)


def build_before(place: Path, before: Path) -> None:
    """Build the package of the version before: its code, packed as today.

    Args:
        before: an empty directory for its tree.
    """
    changed = _git("log", "-1", "--format=%H", "-G__version__ = ", "--", "ipsec_agent/__init__.py")
    for commit, *paths in (("HEAD",), (f"{changed}^", "ipsec_agent", "pyproject.toml")):
        shutil.rmtree(before / "ipsec_agent", ignore_errors=True)
        archive = before / "tree.tar"
        _git("archive", "--output", str(archive), commit, *paths)
        output("tar", "--extract", "--file", str(archive), cwd=before)
    (before / ".cache").symlink_to(ROOT / ".cache")
    output("scripts/package", str(place), cwd=before, deadline=BUILT_WITHIN)
