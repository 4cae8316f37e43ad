"""A config that is refused says where things are, also to the process that had it read."""

import pickle
from datetime import UTC, datetime
from pathlib import Path

import pytest
import yaml

from ipsec_agent.config_file import agent_of, load
from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.core.manifest.salvage import salvaged
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


@pytest.mark.parametrize(
    ("form", "agent_first"),
    [("runtime", False), ("rendered", False), ("rendered", True), ("job", False)],
)
def test_one_that_is_not_yaml(tmp_path: Path, form: str, agent_first: bool) -> None:
    """A mistake elsewhere keeps nobody from reading the section `agent:`."""
    ca = make_ca()
    agent = {"run_dir": "/run/other", "charon": {"log": "/x"}, "state_dir": "/var/other"}
    text = manifest(leaf=make_leaf(ca), cas=[ca], form=form)
    section = yaml.safe_dump({"agent": agent}, sort_keys=False)
    text = section + text if agent_first else text + section
    text = text.replace("ca_certificates:", "ca_certificates: [")
    path = tmp_path / "ipsec.yml"
    path.write_text(text)
    with pytest.raises(ConfigError) as raised:
        load(path)
    assert parse(text, file="", now=datetime.now(UTC)).agent is None
    found = agent_of(raised.value)
    assert (found.run_dir, found.state_dir) == ("/run/other", "/var/other")


@pytest.mark.parametrize(
    "text",
    [
        "ipsec: [",
        "agent: [\nipsec: {",
        "agent:\n  run_dir: [\nipsec: {",
        "agent:\n" * 500 + "[",
        "\0",
    ],
)
def test_nothing_to_be_salvaged(text: str) -> None:
    """Then things are in the usual places."""
    assert salvaged(text, datetime.now(UTC)) in {None, AgentConfig()}


def test_below_properties() -> None:
    """The section may be below `properties:`, beside `ipsec:`; a second one may be the good one."""
    text = "agent: [\nproperties:\n  agent:\n\n    run_dir: /run/other\n    proof: x\n  ipsec: [\n"
    found = salvaged(text, datetime.now(UTC))
    assert found is not None
    assert (found.run_dir, found.proof) == ("/run/other", AgentConfig().proof)
