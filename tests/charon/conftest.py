"""The VM that most of these tests have; what they have measured is shown at the end."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import FIGURES, Node, network
from tests.charon.shared_manifest import configure


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One configured VM."""
    with network(tmp_path, 1) as nodes:
        configure(nodes[0])
        yield nodes[0]


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how long each repair took on this machine."""
    if FIGURES:
        terminalreporter.section("repairs")
        for line in FIGURES:
            terminalreporter.write_line(line)
