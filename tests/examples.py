"""How many examples a test of generated ones tries: a quarter, and all with `scripts/test --long`.

The profiles of hypothesis are in tests/conftest.py.
"""

from hypothesis import settings

WHOLE = 100
"""The examples of a test that names no number, in the profile that tries all."""

FEWEST = 10
"""Tried of each, where there are as many."""


def examples(whole: int) -> int:
    """How many of so many examples are tried in the profile that is in force."""
    return max(whole * settings().max_examples // WHOLE, min(whole, FEWEST))
