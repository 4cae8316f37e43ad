"""What is told of a config before it is taken."""

import pytest
from msgspec.structs import replace

from ipsec_agent.admission import SHIPPED, begins_later
from ipsec_agent.core.config import AgentConfig
from tests.configs import config


@pytest.mark.parametrize("units", [True, False])
def test_another_state_dir(units: bool) -> None:
    """It is told from where to where, and that the shipped units do not follow."""
    old, new = ("/srv/old", SHIPPED) if units else (SHIPPED, "/srv/new")

    (said,) = begins_later(old, config(agent=AgentConfig(state_dir=new)))

    assert f"agent.state_dir is {new} from the agent's next start on, and {old} until" in said
    assert ("the shipped units load the guard of" in said) is not units
    assert begins_later(new, config(agent=replace(AgentConfig(), state_dir=new))) == ()
