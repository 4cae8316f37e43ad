"""What the tests with a real charon have measured is shown at the end."""

import pytest

from tests.charon.nodes import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Show how long each repair took on this machine."""
    if FIGURES:
        terminalreporter.section("repairs")
        for line in FIGURES:
            terminalreporter.write_line(line)
