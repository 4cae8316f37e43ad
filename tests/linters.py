"""Runs the linters; mypy, which takes as long as many tests, beside them."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_files import ROOT

MYPY = pytest.StashKey[subprocess.Popen[str]]()


def program(tool: str) -> str | None:
    """The path of a tool: the virtual environment's, else the machine's; None without one."""
    return shutil.which(str(Path(sys.executable).parent / tool)) or shutil.which(tool)


def begin(config: pytest.Config) -> None:
    """Start mypy, if there is one, without waiting for it."""
    if found := program("mypy"):
        config.stash[MYPY] = _start(found)


def end(config: pytest.Config) -> None:
    """Let no mypy outlive the tests."""
    started = config.stash.get(MYPY, None)
    if started is not None:
        with started:
            started.kill()


def judge(tool: str, *arguments: str, started: subprocess.Popen[str] | None = None) -> None:
    """Run a tool over the project, or wait for one; a missing one is a failure only in CI."""
    found = program(tool)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
    linter = started or _start(found, *arguments)
    said, _ = linter.communicate()
    assert linter.returncode == 0, said


def _start(*words: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT
    )
