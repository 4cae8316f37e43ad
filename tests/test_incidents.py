"""Incidents of a night: one look at the status, or at the log, leads to the cause."""

import json
import signal
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from ipsec_agent.config_file import load
from ipsec_agent.config_watch import ConfigWatch
from ipsec_agent.core.charon_log import Said
from ipsec_agent.core.config_state import ConfigState
from ipsec_agent.core.deaths import Death
from ipsec_agent.core.observed import IkePorts, PortHolder
from ipsec_agent.core.problems.kept_faults import Kept, resumed
from ipsec_agent.core.status import document
from ipsec_agent.reporter import Reporter
from ipsec_agent.verbs.status_text import text
from tests.certificates import make_ca, make_leaf
from tests.core.test_status import states
from tests.manifests import manifest
from tests.passes import quiet_pass
from tests.vm import NOW, Vm, healthy_vm, with_sa

VM = with_sa(healthy_vm())
STEP = 10
"""Seconds between two passes."""


class Night:
    """The passes of one agent, and what it logs of them."""

    def __init__(self, log: list[Any]) -> None:
        self.reporter = Reporter()
        self.log = log
        self.now = NOW
        self.kept = Kept()

    def look(self, vm: Vm) -> str:
        """What the status says after a pass that sees this."""
        self.now += STEP
        seen = vm.but(time=self.now)
        snapshot = self.reporter.report(quiet_pass(seen))
        self.kept = snapshot.kept
        return text(json.loads(json.dumps(document(snapshot))))

    def changes_shift(self) -> None:
        """Another agent takes up what this one knew of peers."""
        self.reporter = Reporter()
        self.reporter.resume(resumed(self.kept, self.now, self.now))

    def logged(self, code: str) -> Any:
        """The one line of the log about a problem."""
        (line,) = [one for one in self.log if one.get("code") == code]
        assert line["event"] == "problem"
        return line


@pytest.fixture
def night() -> Iterator[Night]:
    """An agent whose VM is well."""
    with capture_logs() as log:
        agent = Night(log)
        assert ", healthy" in agent.look(VM)
        assert not log
        yield agent


def test_ports_taken(night: Night) -> None:
    """Which program has which port, and how to see it."""
    owned = frozenset({(4, 500), (6, 500), (6, 4500)})
    racoon = PortHolder(4, 4500, ip_address("0.0.0.0"), 812, "racoon")

    said = night.look(VM.but(ike_ports=IkePorts(owned, (racoon,), (4, 6))))

    assert "NOT HEALTHY" in said
    assert "  CRITICAL ike-port-taken: UDP 4500 is in use by pid 812 (racoon), so" in said
    assert "stop that program; `ss -lunp sport = :4500` shows its sockets" in said
    line = night.logged("ike-port-taken")
    assert line["log_level"] == "critical"
    assert "pid 812 (racoon)" in line["message"]
    assert "stop that program" in line["hint"]


def test_esp_dropped_one_way(night: Night) -> None:
    """The peer answers IKE and the SAs are there: it is named, with the protocol that is lost."""
    for sent in range(30, 240, 30):
        assert ", healthy" in night.look(VM.but(states=states(sent, 0)))
        answer = "received packet: from 10.0.0.9[4500] to 10.0.0.5[4500] (80 bytes)"
        night.reporter.heard(Said("NET", 1, answer), night.now)

    said = [night.look(VM.but(states=states(sent, 0))) for sent in (240, 270, 300)][-1]

    assert "NOT HEALTHY" in said
    assert "  ERROR peer-esp-lost: 10.0.0.9 answers IKE, but no ESP has come back from it" in said
    assert "have protocol 50 (UDP 4500, where encapsulated) pass between the two VMs" in said
    line = night.logged("peer-esp-lost")
    assert line["log_level"] == "error"
    assert "10.0.0.9" in line["message"]
    assert "protocol 50" in line["hint"]


def test_charon_killed_in_a_loop(night: Night) -> None:
    """By which signal, how often and in what time; no other program is accused of repairs."""
    killed = tuple(Death(NOW + second, -signal.SIGKILL) for second in range(12))

    said = night.look(VM.but(deaths=killed))

    assert "  ERROR charon-dies: charon was killed by SIGKILL, 12 times in 11 s" in said
    assert "look for the OOM killer (`journalctl -k -g 'killed process'`)" in said
    line = night.logged("charon-dies")
    assert line["log_level"] == "error"
    assert "OOM killer" in line["hint"]
    assert not [one for one in night.log if one.get("code") == "repair-paused"]


def test_config_broken_for_the_next_shift(night: Night, tmp_path: Path) -> None:
    """Nothing fails yet: a minute later the line is named on which the next start would fail."""
    ca = make_ca()
    path = tmp_path / "ipsec.yml"
    path.write_text(manifest(["10.0.0.0/24"], leaf=make_leaf(ca), cas=[ca], form="rendered"))
    path.chmod(0o600)
    watch = ConfigWatch(path, load(path))
    path.write_text(path.read_text().replace("10.0.0.0/24", "10.0.0.0/33"))
    assert watch.look()
    night.reporter.config_state = ConfigState(str(path), watch.changed, watch.refused)

    *early, said = [night.look(VM) for _ in range(7)]
    assert all(", healthy" in one for one in early)

    cause = (
        f"the agent's next start would be refused: {path}:3: ipsec.ipsec_subnets[0]: '10.0.0.0/33"
    )
    assert f"  WARNING config-refused: {cause}" in said
    assert f"see `ipsec-agent check {path}`" in said
    line = night.logged("config-refused")
    assert line["log_level"] == "warning"
    assert cause in line["message"]


ALONE = healthy_vm()
REFUSAL = Said("IKE", 1, "received AUTHENTICATION_FAILED notify error", 7)
YEAR = 365 * 86_400


def refused(night: Night) -> str:
    """What the status says after a peer has refused this VM."""
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    night.reporter.heard(REFUSAL, night.now)
    return night.look(ALONE)


def succeeds(night: Night) -> str:
    """What the status says after a handshake with that peer."""
    made = "CHILD_SA ipsec-10.0.0.0/16{3} established with SPIs c1_i c2_o and TS a === b"
    night.reporter.heard(Said("IKE", 1, made, 7), night.now)
    return night.look(ALONE)


def test_a_refusal_and_the_next_agent(night: Night) -> None:
    """It says what the one before knew, and the log goes on from there."""
    assert "peer-refuses-us" in refused(night)
    night.changes_shift()

    said = night.look(ALONE)

    assert "  WARNING peer-refuses-us: 10.0.0.9 refuses this VM's certificate or signature" in said
    assert night.reporter.suspects == (ip_address("10.0.0.9"),)
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    assert ", healthy" in succeeds(night)


def test_a_clock_that_is_set_back(night: Night) -> None:
    """What failed by the wrong clock has still failed, and the next success is after it."""
    night.now += YEAR
    assert "peer-refuses-us" in refused(night)
    night.now -= YEAR

    assert "peer-refuses-us" in night.look(ALONE)
    assert ", healthy" in succeeds(night)


def test_a_clock_that_is_set_back_after_a_farewell(night: Night) -> None:
    """A peer that had come back since does not look gone by it."""
    night.now += YEAR
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    night.reporter.heard(Said("IKE", 1, "received DELETE for IKE_SA x[7]", 7), night.now)
    night.look(ALONE)
    answer = "received packet: from 10.0.0.9[4500] to 10.0.0.5[4500] (80 bytes)"
    night.reporter.heard(Said("NET", 1, answer), night.now)
    assert "peer-refuses-us" in refused(night)
    night.now -= YEAR

    said = night.look(ALONE)

    assert "peer-refuses-us" in said
    assert "peer-gone" not in said
