"""The linters as tests, so that one command checks everything."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


def run(tool: str, *arguments: str) -> None:
    """Run a tool over the project; one that is missing is a failure only where CI is set."""
    program = shutil.which(str(BIN / tool)) or shutil.which(tool)
    if program is None:
        if os.environ.get("CI"):
            pytest.fail(f"{tool} is not installed")
        pytest.skip(f"{tool} is not installed")
    done = subprocess.run(
        [program, *arguments], check=False, capture_output=True, text=True, cwd=ROOT
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_ruff() -> None:
    """ruff has nothing to say."""
    run("ruff", "check", ".")


def test_format() -> None:
    """The formatter would change nothing."""
    run("ruff", "format", "--check", ".")


def test_mypy() -> None:
    """mypy --strict has nothing to say."""
    run("mypy")


def test_shellcheck() -> None:
    """shellcheck has nothing to say of any shell script that git tracks or would track."""
    listed = subprocess.run(
        # Whoever runs the tests need not own the files.
        ["git", "-c", "safe.directory=*", "ls-files", "-co", "--exclude-standard"],
        check=True,
        capture_output=True,
        text=True,
        cwd=ROOT,
    ).stdout.split()
    scripts = [
        name
        for name in listed
        if (ROOT / name).is_file()
        and (ROOT / name).read_bytes()[:64].startswith((b"#!/usr/bin/env bash", b"#!/bin/sh"))
    ]
    assert "scripts/test" in scripts
    run("shellcheck", *scripts)
