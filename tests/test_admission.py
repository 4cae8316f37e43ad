"""What is told of a config before it is taken."""

import sys

import pytest

from ipsec_agent.admission import SHIPPED, begins_later
from ipsec_agent.core.config import AgentConfig, CharonConfig
from tests.configs import config


@pytest.mark.parametrize("units", [True, False])
def test_another_state_dir(units: bool) -> None:
    """It is told from where to where, and that the shipped units stay; so is a missing charon."""
    old, new = ("/srv/old", SHIPPED) if units else (SHIPPED, "/srv/new")

    there = CharonConfig(program=sys.executable)

    def told(before: str, charon: CharonConfig = there) -> tuple[str, ...]:
        agent = AgentConfig(state_dir=new, charon=charon)
        return begins_later(before, config(agent=agent))

    (said,) = told(old)

    assert f"agent.state_dir is {new} from the agent's next start on, and {old} until" in said
    assert ("the shipped units load the guard of" in said) is not units
    assert told(new) == told(f"{new}/") == told(f"{new}/.") == ()
    nowhere = CharonConfig(program="/usr/sbin/nochar")
    assert [len(told(one, nowhere)) for one in (old, new)] == [2, 1]
