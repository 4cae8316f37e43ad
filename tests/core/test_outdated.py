"""A config whose certificates do not hold is taken only where nothing gets worse by it."""

from datetime import timedelta

from msgspec.structs import replace

from ipsec_agent.core.outdated import no_worse, outdated
from tests.configs import FACTS

NOW = FACTS.not_before + timedelta(days=10)
DAY = timedelta(days=1)
OLD = replace(FACTS, serial="02", not_after=NOW - DAY)
EARLY = replace(FACTS, serial="03", not_before=NOW + DAY)


def test_outdated() -> None:
    """Expired, and not valid yet; both ends belong to it."""
    assert outdated((FACTS, OLD, EARLY), NOW) == {OLD, EARLY}
    assert outdated((FACTS,), FACTS.not_before) == outdated((FACTS,), FACTS.not_after) == set()


def test_no_worse() -> None:
    """What is in force may stay with other settings; what is not may not come."""
    assert no_worse((FACTS,), (OLD,), NOW)
    assert no_worse((OLD, FACTS), (OLD, FACTS), NOW)
    assert not no_worse((OLD,), (FACTS,), NOW)
    assert not no_worse((EARLY,), (OLD,), NOW)
