"""Without the code that holds it, a test fails: it runs in a mutated copy of all."""

import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.mutations.of_tests import TEST_MUTATIONS, OfTest

pytestmark = [pytest.mark.mutation, pytest.mark.timeout(400)]

SAID = re.compile(r"AssertionError|^E +assert |DID NOT RAISE", re.MULTILINE)
"""What a test says whose assertion does not hold; what does not even run says something else."""


@pytest.mark.parametrize("mutation", TEST_MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_is_noticed(mutation: OfTest, tmp_path: Path) -> None:
    """The test runs, and what it asserts does not hold."""
    done = subprocess.run(
        [
            *(sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider"),
            *("-m", "kernel or charon", mutation.test),
        ],
        check=False,
        cwd=mutation.tree(tmp_path),
        capture_output=True,
        text=True,
        timeout=300,
    )

    assert done.returncode == 1, done.stdout
    assert "1 failed" in done.stdout, done.stdout
    assert SAID.search(done.stdout), done.stdout
