"""The committed mutations apply to the source as it is."""

from collections import Counter

import pytest

from tests.mutations.mutation import ROOT
from tests.mutations.of_tests import TEST_MUTATIONS, OfTest


@pytest.mark.parametrize("mutation", TEST_MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_applies(mutation: OfTest) -> None:
    """Its text is there exactly once, what comes out is Python, and its test is there."""
    assert mutation.source()
    file, _, name = mutation.test.partition("::")
    assert f"def {name.partition('[')[0]}(" in (ROOT / file).read_text()


def test_no_name_twice() -> None:
    """Each is known by its name."""
    assert max(Counter(mutation.name for mutation in TEST_MUTATIONS).values()) == 1
