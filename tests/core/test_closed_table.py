"""The table for a boot whose saved guard does not load: shipped as it is here."""

from pathlib import Path

from ipsec_agent.core.closed_table import CLOSED

SHIPPED = Path(__file__).parents[2] / "systemd" / "closed.nft"


def test_the_shipped_file_is_this_text() -> None:
    """The unit loads the file with no Python; `guard status` knows it by the text."""
    assert CLOSED == SHIPPED.read_text()


def test_it_replaces_and_is_replaced() -> None:
    """It begins as the guard's own table does, and so either takes the other's place whole."""
    lines = [line for line in CLOSED.splitlines() if not line.startswith("#")]

    assert lines[:3] == [
        "table inet ipsec_agent",
        "delete table inet ipsec_agent",
        "table inet ipsec_agent {",
    ]
