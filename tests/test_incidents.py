"""Incidents of a night: one look at the status, or at the log, leads to the cause.

At the border; tests/incidents.py has the words, and docs/testing.md where each is shown for real.
"""

import errno
import json
import os
import signal
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from ipsec_agent.config_file import load
from ipsec_agent.config_watch import ConfigWatch
from ipsec_agent.core.charon_log import Said
from ipsec_agent.core.clock import DAY, ClockFacts
from ipsec_agent.core.config_state import ConfigState
from ipsec_agent.core.deaths import Death
from ipsec_agent.core.model import Direction, PolicySelector
from ipsec_agent.core.observed import IkePorts, Policy, PortHolder
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.path_mtu import PathMtu
from ipsec_agent.core.problems.kept_faults import Kept, resumed
from ipsec_agent.core.proof import Echoes, Observation, Pair, Window
from ipsec_agent.core.proving import judged, proof_problems
from ipsec_agent.core.status import document
from ipsec_agent.core.verify import judge
from ipsec_agent.errors import AgentError
from ipsec_agent.host import files
from ipsec_agent.reporter import Reporter
from ipsec_agent.verbs.status_text import text
from tests import incidents
from tests.certificates import make_ca, make_leaf
from tests.configs import FACTS, config
from tests.core.test_status import states
from tests.incidents import Incident, told
from tests.manifests import manifest
from tests.passes import quiet_pass
from tests.vm import NOW, OWN, PEER, Vm, healthy_vm, with_sa

VM = with_sa(healthy_vm())
P = str(PEER)
STEP = 10
"""Seconds between two passes."""


class Night:
    """The passes of one agent, and what it logs of them."""

    def __init__(self, log: list[Any]) -> None:
        self.reporter = Reporter()
        self.log = log
        self.now = NOW
        self.kept = Kept()
        self.shown = ""

    def look(self, vm: Vm) -> str:
        """What the status says after a pass that sees this."""
        self.now += STEP
        seen = vm.but(time=self.now)
        snapshot = self.reporter.report(quiet_pass(seen))
        self.kept = snapshot.kept
        self.shown = text(json.loads(json.dumps(document(snapshot))))
        return self.shown

    def reads(self, incident: Incident) -> None:
        """Fail unless the newest status and the log lead to the cause."""
        told(incident, self.shown, self.log)

    def changes_shift(self) -> None:
        """Another agent takes up what this one knew of peers."""
        self.reporter = Reporter()
        self.reporter.resume(resumed(self.kept, self.now, self.now))


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

    night.look(VM.but(ike_ports=IkePorts(owned, (racoon,), (4, 6))))

    night.reads(incidents.PORT_TAKEN.of(port=4500, pid=812, program="racoon), so"))


def test_esp_dropped_one_way(night: Night) -> None:
    """The peer answers IKE and the SAs are there: it is named, with the protocol that is lost."""
    for sent in range(30, 240, 30):
        assert ", healthy" in night.look(VM.but(states=states(sent, 0)))
        answer = "received packet: from 10.0.0.9[4500] to 10.0.0.5[4500] (80 bytes)"
        night.reporter.heard(Said("NET", 1, answer), night.now)

    for sent in (240, 270, 300):
        night.look(VM.but(states=states(sent, 0)))

    night.reads(incidents.ESP_LOST_ONE_WAY.of(peer=P))


def test_charon_killed_in_a_loop(night: Night) -> None:
    """By which signal, how often and in what time; no other program is accused of repairs."""
    killed = tuple(Death(NOW + second, -signal.SIGKILL) for second in range(12))

    assert "killed by SIGKILL, 12 times in 11 s" in night.look(VM.but(deaths=killed))

    night.reads(incidents.CHARON_KILLED)
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

    *early, _ = [night.look(VM) for _ in range(7)]
    assert all(", healthy" in one for one in early)

    night.reads(incidents.CONFIG_BROKEN.of(path=path, line=3, subnet="10.0.0.0/33"))


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
    night.log.clear()

    night.look(ALONE)

    night.reads(incidents.REFUSED.of(peer=P))
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


def in_time(night: Night, vm: Vm, incident: Incident) -> str:
    """What the status says once it tells of an incident, within three minutes; the log does, too.

    In one line, whose words the status has.
    """
    said = ""
    for _ in range(18):
        said = night.look(vm)
        if f" {incident.code}: " in said:
            night.reads(incident)
            (line,) = [one for one in night.log if one.get("code") == incident.code]
            assert " ".join(line["message"].split()) in " ".join(said.split())
            assert " ".join(line["hint"].split()) in " ".join(said.split())
            return " ".join(said.split())
    raise AssertionError(said)


def test_path_mtu_of_1300(night: Night) -> None:
    """With `agent.proof`: what size passes, which does not, and what to do on which link."""
    pair = Pair(PEER, OWN, encrypted=True, because="")
    window = Window(esp_out=5, esp_in=5, links=("eth0",))
    seen = Observation(
        pair,
        proof=window,
        sas=True,
        counted_out=5,
        counted_in=5,
        echoes=Echoes(5, (), (0.001,)),
        path=PathMtu(1264, 1466),
    )
    proof = None
    for number in range(2):
        proof = judged(proof, PEER, judge(seen), NOW + 60 * number)
    assert proof
    night.reporter.of_proof = proof_problems([proof])

    in_time(night, VM, incidents.PATH_MTU.of(peer=P, passes=1264, link="eth0", bytes=202))


def test_a_clock_a_year_ahead(night: Night) -> None:
    """The clock is named, and not the certificate, which only seems to have expired."""
    night.now += YEAR
    ends = datetime.fromtimestamp(night.now - DAY, UTC)
    vm = healthy_vm(config(facts=replace(FACTS, not_after=ends)))

    wrong = incidents.CLOCK_AHEAD.of(
        clock="2028-01-15 08:00 UTC; the RTC says 2027-01-15 08:00 UTC"
    )
    said = in_time(night, vm.but(clock=ClockFacts(rtc=NOW)), wrong)

    assert said.index("clock-wrong") < said.index("certificate-expired")
    assert "compare the clock with another VM's first" in said


def test_a_certificate_that_has_expired(night: Night) -> None:
    """Which, when, and how a new one is taken."""
    ends = datetime.fromtimestamp(NOW, UTC) - timedelta(days=2)

    expired = incidents.EXPIRED.of(subject="CN=vm", date="2027-01-13")
    in_time(night, healthy_vm(config(facts=replace(FACTS, not_after=ends))), expired)


def test_a_peers_certificate_that_has_expired(night: Night) -> None:
    """Whose, and when; it is not said beside that that its CA is missing here."""
    begun, ended = "Nov 04 03:10:45 2026", "Jan 13 03:10:45 2027"
    line = f"subject certificate invalid (valid from {begun} to {ended})"
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    night.reporter.heard(Said("CFG", 1, line, 7), night.now)
    night.reporter.heard(Said("IKE", 1, "no trusted RSA public key found for 'CN=x'", 7), night.now)

    said = in_time(night, ALONE, incidents.EXPIRED_THERE.of(peer=P, date=ended))

    assert "peer-not-trusted" not in said


def of_a_handshake(night: Night, text: str, incident: Incident) -> None:
    """A handshake with the peer ends with this line, and that is told."""
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    night.reporter.heard(Said("IKE", 1, text, 7), night.now)
    in_time(night, ALONE, incident)


def test_a_ca_missing_here(night: Night) -> None:
    """Whose certificate is not trusted, and what to compare; there it says the reverse."""
    line = "no trusted RSA public key found for 'CN=other'"

    of_a_handshake(night, line, incidents.CA_MISSING.of(peer=P, subject="CN=other"))


def test_a_peer_with_other_subnets(night: Night) -> None:
    """Which lists to compare."""
    line = "received TS_UNACCEPTABLE notify, no CHILD_SA built"

    of_a_handshake(night, line, incidents.SUBNETS_DIFFER.of(peer=P))


def test_proposals_that_do_not_match(night: Night) -> None:
    """Which properties to compare."""
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    for second in (0, 9):
        line = "received NO_PROPOSAL_CHOSEN notify error"
        night.reporter.heard(Said("IKE", 1, line, 7), night.now + second)

    in_time(night, ALONE, incidents.PROPOSALS_DIFFER.of(peer=P))


def test_udp_500_blocked(night: Night) -> None:
    """Who does not answer IKE, and which ports to look at."""
    of_a_handshake(night, "giving up after 5 retransmits", incidents.IKE_BLOCKED.of(peer=P))


def test_a_peer_without_an_agent(night: Night) -> None:
    """Who sends clear, how many packets, and where to look."""
    night.look(VM.table(clear_in=(), dropped_in=0))
    night.look(VM.table(clear_in=(ClearPeer(PEER, 10, 600, 1),), dropped_in=10))

    night.reads(incidents.WITHOUT_AGENT.of(peer=P, packets=10))


def test_a_state_dir_without_room(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file, why, and how to see it; read-only and full are told apart."""
    for number, incident in (
        (errno.ENOSPC, incidents.DISK_FULL),
        (errno.EROFS, incidents.DISK_READ_ONLY),
    ):

        def refuses(*_: object, number: int = number, **__: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files, "_write_new", refuses)
        with pytest.raises(AgentError) as raised:
            files.write_whole(Path("/var/lib/x/guard.nft"), "table", mode=0o600)
        night.now += STEP
        ended = quiet_pass(VM.but(time=night.now))
        ended = replace(ended, failures=(("save guard", raised.value),))
        night.reporter = Reporter()
        snapshot = night.reporter.report(ended)
        night.shown = text(json.loads(json.dumps(document(snapshot))))

        night.reads(incident.of(file="/var/lib/x/guard.nft", place="/var/lib/x"))


def test_another_ipsec_program(night: Night) -> None:
    """Which policy of whom lets packets past, and how to find it."""
    selector = PolicySelector(Direction.OUT, ip_network("0.0.0.0/0"), ip_network("10.0.0.0/24"))
    strange = Policy(selector, 1, esp=False, blocks=False)

    other = incidents.OTHER_IPSEC.of(policy="0.0.0.0/0 to 10.0.0.0/24 (out)")
    in_time(night, VM.but(policies=(*VM.observed.policies, strange)), other)


def test_a_foreign_setdefault(night: Night) -> None:
    """What the kernel blocks, and the command that undoes it."""
    blocked = VM.but(default_blocks=(Direction.IN, Direction.OUT))
    in_time(night, blocked, incidents.SET_DEFAULT.of(ways="in, out"))


def test_a_nat_in_between(night: Night) -> None:
    """The kernel's counter, what it means, and the property."""
    for number in range(18):
        night.look(VM.but(counters=(("XfrmInStateMismatch", 5 * number),)))

    night.reads(incidents.NAT_BETWEEN)


def test_esp_blocked_both_ways(night: Night) -> None:
    """With `agent.proof` it is seen without any traffic of a job's: protocol 50 is named."""
    seen = Observation(
        Pair(PEER, OWN, encrypted=True, because=""),
        proof=Window(esp_out=5),
        sas=True,
        counted_out=5,
    )
    once = judged(None, PEER, judge(seen), NOW)
    night.reporter.of_proof = proof_problems([judged(once, PEER, judge(seen), NOW + 60)])

    in_time(night, VM, incidents.ESP_BLOCKED.of(peer=P))
