"""Whatever happens to a VM under floods: no packet in clear, and healed in time."""

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.host.control_client import ask
from tests.charon.nodes import SCALE
from tests.lab.bed import BARE, CONTAINERS, IPV6, TRACKED, TWO_NICS, Bed, Setting, bed
from tests.lab.faults import Fault, change_address, delete_sas_policies, flush_policies
from tests.lab.matrix import Figures, median_row, row
from tests.lab.rows import ROWS

pytestmark = pytest.mark.timeout(300)

SETTINGS = (BARE, CONTAINERS, TWO_NICS, TRACKED, IPV6)


def table(faults: Sequence[Fault]) -> list[Any]:
    """Rows in every setting that has them; those that tell no more than another are long."""
    return [
        pytest.param(
            setting,
            fault,
            marks=pytest.mark.esp if setting in fault.shown else pytest.mark.long,
            id=f"{setting.name}: {fault.name}",
        )
        for setting in SETTINGS
        for fault in faults
        if fault.fits(setting)
    ]


class Beds:
    """One bed at a time: that of the setting asked for last.

    Not left to the fixtures' own scope: of two parameters that go together pytest makes each pair
    a new one.
    """

    def __init__(self, directory: Path) -> None:
        self._directory = directory
        self._stack = contextlib.ExitStack()
        self._laid: Bed | None = None

    def of(self, setting: Setting) -> Bed:
        """The bed of a setting, made anew where the last one is another's."""
        if self._laid is None or self._laid.setting is not setting:
            self.close()
            place = self._directory / setting.name.replace(" ", "-")
            place.mkdir()
            self._laid = self._stack.enter_context(bed(setting, place))
        return self._laid

    def close(self) -> None:
        """Take the bed away."""
        self._laid = None
        self._stack.close()


@pytest.fixture(scope="module")
def beds(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Beds]:
    """All rows of one setting follow each other (conftest.py), and share its bed."""
    with contextlib.closing(Beds(tmp_path_factory.mktemp("matrix"))) as found:
        yield found


@pytest.fixture
def laid(request: pytest.FixtureRequest, beds: Beds) -> Bed:
    """The bed of the row's setting."""
    setting: Setting = request.param
    return beds.of(setting)


@pytest.mark.parametrize(("laid", "fault"), table(ROWS), indirect=["laid"])
def test_row(laid: Bed, fault: Fault, matrix_figures: list[Figures]) -> None:
    """One row of the matrix."""
    median_row(laid, fault, matrix_figures.append)


FLUSH = replace(next(row for row in ROWS if row.do is flush_policies), shown=(BARE,))
LEAKING = (FLUSH, *(row for row in ROWS if row.do in {delete_sas_policies, change_address}))


@pytest.mark.parametrize(("laid", "fault"), table(LEAKING), indirect=["laid"])
def test_without_the_guard_the_judge_convicts(laid: Bed, fault: Fault) -> None:
    """The same, with the guard taken down: clear packets on the wire, and the row says so."""
    control = str(laid.a.run_dir / "control.sock")
    laid.settle()
    ask(control, "guard-down", deadline=10 * SCALE)
    try:
        with pytest.raises(AssertionError, match=r"clear packets between|^clear: "):
            row(laid, fault, settle=False)
    finally:
        ask(control, "guard-up", deadline=10 * SCALE)


@pytest.mark.parametrize(("laid", "fault"), table([FLUSH]), indirect=["laid"])
def test_without_repair_the_row_fails(laid: Bed, fault: Fault) -> None:
    """The same flush, with an agent that does nothing: nothing is clear, and nothing heals."""
    laid.settle()
    agent = laid.a.agent
    assert agent is not None
    agent.send_signal(signal.SIGSTOP)
    try:
        with pytest.raises(AssertionError, match="is not healed"):
            row(laid, replace(fault, limit=0.1), settle=False, patience=2.0, esp=1)
    finally:
        agent.send_signal(signal.SIGCONT)
