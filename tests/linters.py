"""Runs the linters."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.data_files import ROOT


def program(tool: str) -> str | None:
    """The path of a tool: the virtual environment's, else the machine's; None without one."""
    return shutil.which(str(Path(sys.executable).parent / tool)) or shutil.which(tool)


def judge(tool: str, *arguments: str) -> None:
    """Run a tool over the project; a missing one is a failure only in CI."""
    found = program(tool)
    if found is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
    linter = subprocess.run(
        [found, *arguments],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        cwd=ROOT,
        timeout=500,
    )
    assert linter.returncode == 0, linter.stdout
