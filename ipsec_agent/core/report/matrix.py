"""How each VM speaks with each other one, as the matrix of the report's page."""

import enum
from collections.abc import Iterable

from msgspec import Struct

from ipsec_agent.core.report.examined import Report
from ipsec_agent.core.report.findings import by_name
from ipsec_agent.core.report.said import Peer

MOST = 250
"""VMs of a matrix; of larger fleets those with something wrong, and as many others as fit."""

DENSE = 40
"""VMs from which on the cells are small."""


class Mark(enum.Enum):
    """What a cell shows: a letter, a class of the style sheet and what it means."""

    SELF = "", "self", "the VM itself"
    NONE = "", "none", "no SA, and no clear packet: they do not talk, or nobody has counted"
    ESP = "E", "esp", "ESP: there are SAs that carry packets"
    CLEAR = "C", "clear", "clear packets pass"
    DROPPED = "D", "dropped", "clear packets were tried, and dropped"
    FAILS = "F", "fails", "no SA carries packets: refused, silent or still connecting"
    ODD = (
        "≠",
        "odd",
        "only one of the two says so: an SA that the other lacks, or ESP that did not arrive",
    )

    @property
    def letter(self) -> str:
        """Of the cell."""
        return self.value[0]

    @property
    def style(self) -> str:
        """Class of the style sheet."""
        return self.value[1]

    @property
    def meaning(self) -> str:
        """For the legend."""
        return self.value[2]


_LOUDER = frozenset({Mark.CLEAR, Mark.DROPPED})
"""What a cell shows rather than that only one of two says so."""


class Matrix(Struct, frozen=True):
    """Rows are VMs with a file, columns are all; a cell is what the row's VM says.

    Attributes:
        cells: by row and column; what is not there is SELF or NONE.
        left_out: VMs for which there was no room.
    """

    rows: tuple[str, ...]
    columns: tuple[str, ...]
    cells: dict[str, dict[str, Mark]]
    left_out: int

    def mark(self, row: str, column: str) -> Mark:
        """What a cell shows."""
        if row == column:
            return Mark.SELF
        return self.cells[row].get(column, Mark.NONE)


def matrix(report: Report) -> Matrix:
    """The matrix of a fleet."""
    fleet = report.fleet
    everyone = [*(vm.name for vm in fleet.vms), *by_name(fleet.strangers)]
    shown = sorted(everyone, key=lambda name: name not in report.loudest)[:MOST]
    columns = by_name(shown)
    rows = tuple(name for name in columns if name in fleet.partners)
    chosen = set(columns)
    cells = {row: _row(fleet.partners[row], chosen) for row in rows}
    for one in report.clear:
        if one.vm in cells and one.peer in chosen:
            cells[one.vm][one.peer] = Mark.CLEAR if one.passes else Mark.DROPPED
    for odd in report.odd:
        for row, column in ((odd.vm, odd.peer), (odd.peer, odd.vm)):
            if row in cells and column in chosen:
                mark = cells[row].get(column, Mark.NONE)
                cells[row][column] = mark if mark in _LOUDER else Mark.ODD
    return Matrix(rows, tuple(columns), cells, len(everyone) - len(shown))


def _row(partners: dict[str, Peer], chosen: Iterable[str]) -> dict[str, Mark]:
    return {
        name: Mark.ESP if peer.up and not peer.problem else Mark.FAILS
        for name, peer in partners.items()
        # One that is gone may have had nothing to say any more.
        if name in chosen and peer.state != "gone"
    }
