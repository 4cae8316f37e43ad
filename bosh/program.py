"""Runs a program of others, and takes what it says."""

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

ENDED_WITHIN = 900.0
"""Seconds, for tens of megabytes over a slow line."""


def run(words: Sequence[str], place: Path) -> subprocess.CompletedProcess[str]:
    """Run it there; that it is missing or does not end is told as its own complaint."""
    try:
        return subprocess.run(  # noqa: S603 - a list, without a shell
            words,
            check=False,
            capture_output=True,
            text=True,
            cwd=place,
            timeout=ENDED_WITHIN,
            env={**os.environ, "LC_ALL": "C"},
        )
    except FileNotFoundError:
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]} is not installed")
    except subprocess.TimeoutExpired:
        complaint = f"{words[0]} did not end within {ENDED_WITHIN:g} s"
        return subprocess.CompletedProcess(words, 124, "", complaint)
