"""`agent.proof`: off, or seconds within its bounds."""

from datetime import UTC, datetime

import pytest

from ipsec_agent.core.manifest.parser import Parsed, parse
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca()
TEXT = manifest(leaf=make_leaf(CA), cas=[CA], form="rendered")


def read(value: str) -> Parsed:
    """A config with this value."""
    return parse(f"{TEXT}agent:\n  proof: {value}\n", file="ipsec.yml", now=datetime.now(UTC))


@pytest.mark.parametrize(
    ("value", "seconds"), [("0", 0), ("0.0", 0), ("10", 10), ("60", 60), ("86400", 86_400)]
)
def test_accepted(value: str, seconds: float) -> None:
    """Both bounds, and 0 for never, which is the default."""
    found = read(value)

    assert found.complaints == ()
    assert found.config
    assert found.config.agent.proof == seconds
    assert parse(TEXT, file="x", now=datetime.now(UTC)).config.agent.proof == 0  # type: ignore[union-attr]


@pytest.mark.parametrize("value", ["9.9", "1", "86401", "-1", '"60"', "yes", "no", "false", "[60]"])
def test_refused(value: str) -> None:
    """What is written instead is named."""
    (complaint,) = read(value).complaints

    assert "agent.proof" in str(complaint)
    assert "must be 0 (off), or a number from 10 to 86400" in str(complaint)
