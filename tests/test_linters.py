"""The linters as tests, so that one command checks everything."""

import subprocess

import pytest

from tests import linters
from tests.data_files import ROOT


def test_ruff() -> None:
    """ruff has nothing to say."""
    linters.judge("ruff", "check", ".")


def test_format() -> None:
    """The formatter would change nothing."""
    linters.judge("ruff", "format", "--check", ".")


@pytest.mark.timeout(520)
def test_mypy() -> None:
    """mypy --strict has nothing to say."""
    linters.judge("mypy")


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
    linters.judge("shellcheck", *scripts)
