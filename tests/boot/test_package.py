"""A VM's life with the Debian package, under the real systemd and dpkg.

The package is built here, of this tree and of the version before it. A container lives through all
of it once, and writes down what it saw; the tests read that. It has this machine's kernel.
"""

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent import __version__
from tests.boot.container import in_container
from tests.boot.package_driver import FAILED, REFUSES
from tests.boot.packaged import output
from tests.boot.place import CONFIG, SAVED_GUARD, VM
from tests.certificates import ec_key, make_ca, make_leaf
from tests.data_files import ROOT, installed
from tests.manifests import manifest

pytestmark = [pytest.mark.boot, pytest.mark.timeout(900)]

DEADLINE = 400.0
IPSEC = ("ipsec-agent.target", "ipsec-agent-guard.service")

Phases = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def phases(packages: Path, tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """One life."""
    results = tmp_path_factory.mktemp("life")
    for path in packages.glob("*.deb"):
        shutil.copy(path, results)
    ca = make_ca()
    leaf = make_leaf(ca, key=ec_key())
    # Its link's other end is beside it, as that of a container.
    agent = {"address": VM, "uplinks": ["eth0"]}
    text = manifest(["10.9.0.0/24"], leaf=leaf, cas=[ca], agent=agent, prestart_timeout=100)
    (results / "vm.yml").write_text(text)
    in_container(f"{sys.executable} -m tests.boot.package_driver", results, DEADLINE)
    log = results / "driver.log"
    assert (results / "phases.json").exists(), log.read_text() if log.exists() else "no boot"
    found: Phases = json.loads((results / "phases.json").read_text())
    failed = {name: phase["failed"] for name, phase in found.items() if "failed" in phase}
    assert not failed, f"{failed}; {results}"
    return found


def test_what_is_in_it(package: Path) -> None:
    """Each file of systemd/ and monit/, the program, its libraries and the documents."""
    listed = {
        line.split()[-1].removeprefix("./").removesuffix(".8.gz")
        for line in output("dpkg-deb", "--contents", str(package)).splitlines()
    }
    pages = {path.name for path in (ROOT / "docs").glob("*.md")}
    # Debian's zsh looks elsewhere, and its manual pages are packed.
    wanted = {
        path.replace("site-functions", "vendor-completions").removesuffix(".8")
        for path in installed()
    }
    assert wanted <= listed
    assert {f"usr/share/doc/ipsec-agent/docs/{name}" for name in pages} <= listed
    assert {
        "usr/bin/ipsec-agent",
        "usr/lib/ipsec-agent/ipsec_agent/agent.py",
        "usr/share/doc/ipsec-agent/examples/ipsec.yml",
    } <= listed


def test_lintian(package: Path) -> None:
    """Debian's own judge has nothing to say, but for what deb/lintian-overrides explains."""
    if shutil.which("lintian") is None:
        pytest.skip("lintian is not installed")
    assert output("lintian", "--allow-root", str(package), deadline=120) == ""


def test_the_installation_starts_nothing(phases: Phases) -> None:
    """Not even where the target is started, since there is no config; the next boot would."""
    found = phases["installed"]

    assert found["states"]["ipsec-agent.service"] == "inactive"
    assert (found["agent"], found["charon_after"]) == ("0", "0")
    assert found["guard"] == ""
    assert [found["enabled"][unit] for unit in IPSEC] == ["enabled", "enabled"]
    assert "nothing runs yet" in found["said"]


def test_another_charon_leaves_the_ports(phases: Phases) -> None:
    """That of Debian's package, which nobody has given a connection."""
    assert phases["installed"]["enabled"]["strongswan.service"] == "disabled"
    assert "strongswan.service, which has no connections" in phases["installed"]["said"]


def test_it_starts_with_its_config(phases: Phases) -> None:
    """The target, which is active, is started again: the agent and charon are there."""
    found = phases["started"]

    assert found["agent"] != "0" != found["charon_after"]
    assert "dst 10.9.0.0/24" in found["policies"]


@pytest.mark.parametrize("name", ["downgraded", "upgraded"])
def test_another_version(phases: Phases, name: str) -> None:
    """The agent is another; charon and the policies are the same."""
    found = phases[name]

    assert (__version__ in found["version"]) is (name == "upgraded")
    assert found["version"] in found["says"]
    assert found["agent"] not in ("0", found["agent_before"])
    assert found["charon_before"] == found["charon_after"] != "0"
    assert found["policies"] == found["policies_before"] != ""


def faults(found: dict[str, Any]) -> set[tuple[Any, ...]]:
    """What the state says of peers that failed: why, and when first and last."""
    peers = json.loads(found["state"]["faults.json"])["peers"]
    return {(one["peer"], *fault) for one in peers for fault in one["faults"]}


@pytest.mark.parametrize("name", ["remembered", "downgraded", "upgraded"])
def test_each_reads_the_state_of_the_other(phases: Phases, name: str) -> None:
    """What fails with a peer is told by both, and written as it was; nothing is complained of."""
    before, found = phases["remembered"], phases[name]

    (same,) = [one for one in found["status"]["problems"] if one["code"] == REFUSES]
    assert FAILED in same["message"]
    # charon asks the peer again meanwhile, and hears nothing.
    assert faults(found) >= faults(before) != set()
    assert FAILED in found["state"]["peers.json"]
    assert "Traceback" not in found["journal"]


def test_what_the_version_before_does_not_know_outlives_it(phases: Phases) -> None:
    """Outages and events."""
    before, after = phases["remembered"], phases["upgraded"]

    assert before["status"]["outages"] == after["status"]["outages"] != []
    kept = {event["text"] for event in before["status"]["events"]}
    assert kept <= {event["text"] for event in after["status"]["events"]}


def test_removed(phases: Phases) -> None:
    """IPsec ended cleanly; config and guard stay, so that nothing travels in clear yet."""
    found = phases["removed"]

    assert set(found["states"].values()) == {"inactive"}
    assert (found["agent"], found["charon_after"]) == ("0", "0")
    assert found["policies"] == ""
    assert found["there"] == [str(CONFIG), str(SAVED_GUARD)]
    assert "hook postrouting" in found["guard"]


def test_purged(phases: Phases) -> None:
    """Nothing is left, the guard included, and that packets travel in clear is said."""
    found = phases["purged"]

    assert found["there"] == []
    assert found["guard"] == ""
    assert found["version"] == ""
    assert "travel in clear" in found["said"]
