"""A VM's life with the Debian package while Debian 12 becomes Debian 13, as an operator does it.

A container with the real systemd, apt and Debian's packages lives through it once; the tests read
what was seen. It has this machine's kernel: one without ESP is the only thing that is wrong there.
"""

import re
from pathlib import Path
from typing import Any

import pytest

from tests.boot.driver import AGENT, CHARON, TARGET
from tests.boot.package_driver import GUARD, STRONGSWAN
from tests.boot.place import VM
from tests.boot.upgrade import live
from tests.certificates import ec_key, make_ca, make_leaf
from tests.manifests import manifest

pytestmark = [pytest.mark.boot, pytest.mark.timeout(3000)]

PHASES = ("before", "upgraded", "old Python gone", "another charon", "rebooted")
LATER = PHASES[1:]
TIME = len("2026-11-28 11:05:14")

Phases = dict[str, dict[str, Any]]


@pytest.fixture(scope="module")
def phases(package: Path, tmp_path_factory: pytest.TempPathFactory) -> Phases:
    """One life."""
    place = tmp_path_factory.mktemp("upgrade")
    results = place / "results"
    results.mkdir()
    ca = make_ca()
    agent = {"address": VM, "uplinks": ["eth0"]}
    leaf = make_leaf(ca, key=ec_key())
    config = manifest(["10.9.0.0/24"], leaf=leaf, cas=[ca], agent=agent, prestart_timeout=100)
    return live(place / "root", results, package, config)


def codes(found: dict[str, Any]) -> set[str]:
    """Of the problems that the agent reports."""
    return {problem["code"] for problem in found["status"]["problems"]}


def lasting(policies: str) -> list[str]:
    """Policies, but for those of sockets."""
    return sorted(one for one in re.split(r"\n(?=src)", policies) if "\tdir " in one)


BEFORE_ANOTHER = (
    "the charon that runs was started before another strongSwan was installed: until it is"
    " restarted it has the holes of the one before"
)


def said(found: dict[str, Any], check: str) -> list[str]:
    """What a check of `doctor` says."""
    return [finding["message"] for finding in found["doctor"][check]["findings"]]


def test_both_debians(phases: Phases) -> None:
    """Another release with another Python, on which all that the package needs is installed."""
    before, after = phases["before"], phases["upgraded"]

    assert before["release"].startswith("12.")
    assert after["release"].startswith("13.")
    assert before["python"] != after["python"]
    for found in phases.values():
        assert "Depends" not in found["broken"]
        assert "ipsec-agent" not in found["broken"]


@pytest.mark.parametrize("name", PHASES)
def test_it_runs(phases: Phases, name: str) -> None:
    """Agent and charon, both enabled for the next boot; Debian's own charon stays disabled."""
    found = phases[name]

    assert found["status"]["state"] in {"running", "degraded"}
    assert "0" not in found["pids"].values()
    assert found["active"][TARGET] == "active"
    assert found["enabled"] == {TARGET: "enabled", GUARD: "enabled", STRONGSWAN: "disabled"}
    assert "ipsec-agent" not in found["failed"]
    assert STRONGSWAN not in found["failed"]


def test_the_guard_never_goes(phases: Phases) -> None:
    """From before the upgrade until after the last restart each look finds all of it."""
    seen = phases["upgraded"]["witness"]

    assert seen["looks"] > 1000
    assert seen["without"] == 0
    assert seen["fewest_rules"] > 50
    assert all("hook postrouting" in found["guard"] for found in phases.values())


def test_the_agent_has_the_new_python(phases: Phases) -> None:
    """As soon as Debian has it, without a reboot; charon and the policies stay meanwhile."""
    before, after = phases["before"], phases["upgraded"]

    assert before["programs"][AGENT] == "/usr/bin/python3.11"
    assert after["programs"][AGENT] == "/usr/bin/python3.13"
    assert before["pids"][CHARON] == after["pids"][CHARON]
    assert lasting(before["policies"]) == lasting(after["policies"]) != []


def test_the_old_python_is_missed_by_nobody(phases: Phases) -> None:
    """`apt autoremove` takes it away; a reload is what imports most."""
    found = phases["old Python gone"]

    assert found["code"] == 0
    assert "Traceback" not in found["journal"]


@pytest.mark.parametrize("name", LATER)
def test_nothing_is_said_that_is_not_so(phases: Phases, name: str) -> None:
    """Neither by the agent nor by doctor: no problem is new, and none is of the guard."""
    before, found = phases["before"], phases[name]

    assert codes(found) == codes(before) <= {"esp-unavailable"}
    for check in ("guard", "boot", "config", "agent", "firewall", "other-ipsec", "plugins"):
        assert said(found, check) == [], check


def test_the_charon_of_before_is_named(phases: Phases) -> None:
    """Debian's new strongSwan is on the disk, and what runs is the old one until its restart."""
    for name in ("upgraded", "old Python gone"):
        assert phases[name]["programs"][CHARON].endswith(" (deleted)")
        assert BEFORE_ANOTHER in said(phases[name], "strongswan")
    for name in ("before", "another charon", "rebooted"):
        assert "started before" not in "".join(said(phases[name], "strongswan"))
        assert "(deleted)" not in phases[name]["programs"][CHARON]
    assert phases["before"]["status"]["charon"]["version"].startswith("5.9.8")
    assert phases["another charon"]["status"]["charon"]["version"].startswith("6.")


@pytest.mark.parametrize("name", LATER)
def test_config_and_state_are_kept(phases: Phases, name: str) -> None:
    """Not a byte of the config changes, and what happened before is still told."""
    before, found = phases["before"], phases[name]

    assert found["config"] == before["config"]
    times = {line[:TIME] for line in before["events"].splitlines()}
    assert [time for time in times if time not in found["events"]] == []
    assert said(found, "outages") == []


def test_the_next_boot(phases: Phases) -> None:
    """The guard comes first, and all is of the new Debian."""
    found = phases["rebooted"]

    assert found["active"][GUARD] == "active"
    assert found["programs"][AGENT] == "/usr/bin/python3.13"
    assert found["status"]["charon"]["version"].startswith("6.")
    assert lasting(found["policies"]) == lasting(phases["before"]["policies"])
