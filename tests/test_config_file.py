"""A config that is refused says where things are, also to the process that had it read."""

import pickle
from pathlib import Path

import pytest

from ipsec_agent.config_file import agent_of, load
from ipsec_agent.errors import ConfigError
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest


def test_a_refused_one_is_passed_on(tmp_path: Path) -> None:
    """The agent has a child read its config, and gets what the child got."""
    ca = make_ca()
    path = tmp_path / "ipsec.yml"
    path.write_text(
        manifest(["10.0.0.0/99"], leaf=make_leaf(ca), cas=[ca], agent={"run_dir": "/run/other"})
    )
    with pytest.raises(ConfigError) as raised:
        load(path)

    passed_on = pickle.loads(pickle.dumps(raised.value))

    assert (passed_on.message, passed_on.hint) == (raised.value.message, raised.value.hint)
    assert passed_on.complaints == raised.value.complaints
    assert agent_of(passed_on).run_dir == "/run/other"
