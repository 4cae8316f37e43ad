"""A config that is refused says where things are, also to the process that had it read."""

import pickle
import subprocess
import sys
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


def test_whoever_has_it_read_apart_does_without_the_parser(tmp_path: Path) -> None:
    """A daemon looks at its file for as long as it runs; the config and a refusal are the same."""
    ca = make_ca()
    path, other = tmp_path / "ipsec.yml", tmp_path / "other.yml"
    path.write_text(manifest(["10.0.0.0/24"], leaf=make_leaf(ca), cas=[ca]))
    other.write_text(manifest(["10.0.0.0/99"], leaf=make_leaf(ca), cas=[ca]))
    for each in (path, other):
        each.chmod(0o600)
    program = f"""
import sys
from pathlib import Path
from ipsec_agent.config_file import load
from ipsec_agent.config_watch import ConfigWatch
from ipsec_agent.errors import ConfigError
path = Path({str(path)!r})
loaded = load(path, apart=True)
print(loaded.digest)
try:
    load(Path({str(other)!r}), apart=True)
except ConfigError as error:
    print(error.message, *error.complaints)
watch = ConfigWatch(path, loaded)
path.write_text(Path({str(other)!r}).read_text())
print(watch.look(), watch.refused)
print({{name.partition(".")[0] for name in sys.modules}} & {{"cryptography", "yaml"}})
"""
    with pytest.raises(ConfigError) as refused:
        load(other)
    digest = load(path).digest

    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    ).stdout.splitlines()

    assert done[0] == digest
    assert done[1] == " ".join((refused.value.message, *refused.value.complaints))
    assert done[2].startswith("True ")
    assert "10.0.0.0/99" in done[2]
    assert done[3] == "set()"


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


@pytest.mark.parametrize("after", [True, False])
def test_the_least_far_in_counts(after: bool) -> None:
    """What is further in is another add-on's, or within a text."""
    good, other = "agent:\n  run_dir: /run/own\n", "x:\n    agent:\n      run_dir: /run/other\n"
    text = (other + good if after else good + other) + "ipsec: [\n"

    found = salvaged(text, datetime.now(UTC))

    assert found is not None
    assert found.run_dir == "/run/own"
