"""Without the code that holds it, a row of the matrix fails: the agents run a mutated copy."""

from pathlib import Path

import pytest

from tests.charon import agents
from tests.lab.bed import bed
from tests.lab.matrix import row
from tests.lab.mutations import ROW_MUTATIONS, OfRow
from tests.lab.rows import ROWS


@pytest.mark.parametrize("mutation", ROW_MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_applies(mutation: OfRow) -> None:
    """Its text is there exactly once, and the matrix has such a row in that setting."""
    assert mutation.source()
    (fault,) = (fault for fault in ROWS if fault.name == mutation.row)
    assert fault.fits(mutation.setting)


@pytest.mark.long
@pytest.mark.timeout(400)
@pytest.mark.parametrize("mutation", ROW_MUTATIONS, ids=lambda mutation: mutation.name)
def test_its_row_fails(mutation: OfRow, tmp_path: Path) -> None:
    """The VMs come up, and what happens to one of them is not held any more."""
    (fault,) = (fault for fault in ROWS if fault.name == mutation.row)
    places = [tmp_path / name for name in ("vms", "source")]
    for place in places:
        place.mkdir()
    vms, source = places
    with (
        agents.of(mutation.tree(source)),
        bed(mutation.setting, vms) as laid,
        pytest.raises(AssertionError, match=mutation.verdict),
    ):
        row(laid, fault)
