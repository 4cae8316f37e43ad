"""Whatever happens to a VM under floods: no packet in clear, and healed in time."""

from collections.abc import Iterator

import pytest

from tests.lab.bed import BARE, CONTAINERS, IPV6, SWAPPED, TWO_NICS, Bed, Setting, bed
from tests.lab.faults import Fault
from tests.lab.matrix import ROWS, Figures, row

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(
    scope="module",
    params=[
        pytest.param(BARE, marks=pytest.mark.esp),
        pytest.param(CONTAINERS, marks=pytest.mark.esp),
        pytest.param(SWAPPED, marks=pytest.mark.long),
        pytest.param(IPV6, marks=pytest.mark.long),
        pytest.param(TWO_NICS, marks=pytest.mark.long),
    ],
    ids=lambda setting: setting.name,
)
def laid(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Bed]:
    """A bed for each setting."""
    setting: Setting = request.param
    with bed(setting, tmp_path_factory.mktemp("matrix")) as ready:
        yield ready


@pytest.mark.parametrize("fault", ROWS, ids=lambda fault: fault.name)
def test_row(laid: Bed, fault: Fault, matrix_figures: list[Figures]) -> None:
    """One row of the matrix."""
    if laid.setting.containers and not fault.nat:
        pytest.skip("it would end the translation of addresses")
    row(laid, fault, matrix_figures.append)
