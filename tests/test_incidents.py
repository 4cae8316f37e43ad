"""Incidents of a night: one look at the status, or at the log, leads to the cause."""

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
from tests.certificates import make_ca, make_leaf
from tests.configs import FACTS, config
from tests.core.test_status import states
from tests.manifests import manifest
from tests.passes import quiet_pass
from tests.vm import NOW, OWN, PEER, Vm, healthy_vm, with_sa

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


def in_time(night: Night, vm: Vm, code: str) -> str:
    """What the status says once it tells of a problem, within three minutes; the log has it, too.

    The log's line has the same words.
    """
    said = ""
    for _ in range(18):
        said = night.look(vm)
        if f" {code}: " in said:
            line = night.logged(code)
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

    said = in_time(night, VM, "proof-failed")

    assert (
        "packets to 10.0.0.9 are ESP both ways, but those of more than 1264 bytes are lost" in said
    )
    assert "lower the MTU of eth0 on both VMs by at least 202 bytes" in said


def test_a_clock_a_year_ahead(night: Night) -> None:
    """The clock is named, and not the certificate, which only seems to have expired."""
    night.now += YEAR
    ends = datetime.fromtimestamp(night.now - DAY, UTC)
    vm = healthy_vm(config(facts=replace(FACTS, not_after=ends)))

    said = in_time(night, vm.but(clock=ClockFacts(rtc=NOW)), "clock-wrong")

    assert "the clock says 2028-01-15 08:00 UTC; the RTC says 2027-01-15 08:00 UTC" in said
    assert said.index("clock-wrong") < said.index("certificate-expired")
    assert "compare the clock with another VM's first" in said


def test_a_certificate_that_has_expired(night: Night) -> None:
    """Which, when, and how a new one is taken."""
    ends = datetime.fromtimestamp(NOW, UTC) - timedelta(days=2)

    said = in_time(
        night, healthy_vm(config(facts=replace(FACTS, not_after=ends))), "certificate-expired"
    )

    assert (
        "CRITICAL certificate-expired: the instance certificate CN=vm expired on 2027-01-13" in said
    )
    assert "`ipsec-agent reload`" in said


def of_a_handshake(night: Night, text: str, code: str) -> str:
    """What the status says after a handshake with the peer that ends with this line."""
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    night.reporter.heard(Said("CFG" if "peer config" in text else "IKE", 1, text, 7), night.now)
    return in_time(night, ALONE, code)


def test_a_ca_missing_here(night: Night) -> None:
    """Whose certificate is not trusted, and what to compare; there it says the reverse."""
    line = "no trusted RSA public key found for 'CN=other'"

    said = of_a_handshake(night, line, "peer-not-trusted")

    assert "this VM does not trust the certificate of 10.0.0.9" in said
    assert "CN=other" in said
    assert "compare issuers and fingerprints of ca_certificates" in said


def test_a_peer_with_other_subnets(night: Night) -> None:
    """Which lists to compare."""
    line = "received TS_UNACCEPTABLE notify, no CHILD_SA built"

    said = of_a_handshake(night, line, "selectors-differ")

    assert "10.0.0.9 and this VM do not agree on what to encrypt" in said
    assert "compare ipsec_subnets and no_ipsec_subnets of both VMs" in said


def test_proposals_that_do_not_match(night: Night) -> None:
    """Which properties to compare."""
    night.reporter.heard(Said("IKE", 1, "initiating IKE_SA x[7] to 10.0.0.9", 7), night.now)
    for second in (0, 9):
        line = "received NO_PROPOSAL_CHOSEN notify error"
        night.reporter.heard(Said("IKE", 1, line, 7), night.now + second)

    said = in_time(night, ALONE, "proposals-differ")

    assert "10.0.0.9 and this VM have no proposal in common" in said
    assert "compare esp_proposals and ike_proposals of both VMs" in said


def test_udp_500_blocked(night: Night) -> None:
    """Who does not answer IKE, and which ports to look at."""
    said = of_a_handshake(night, "giving up after 5 retransmits", "peer-silent")

    assert "10.0.0.9 does not answer IKE" in said
    assert "check that the peer is up, and that UDP 500, UDP 4500 and protocol 50 reach it" in said


def test_a_peer_without_an_agent(night: Night) -> None:
    """Who sends clear, how many packets, and where to look."""
    said = ""
    for number in range(18):
        sender = ClearPeer(PEER, 10 * number, 600 * number, 1)
        said = night.look(VM.table(clear_in=(sender,), dropped_in=10 * number))
        if "clear-received" in said:
            break

    assert "clear packets from 10.0.0.9" in " ".join(said.split())
    assert "`ipsec-agent status`" in said
    assert "10.0.0.9" in night.logged("clear-received")["message"]


def test_a_state_dir_without_room(night: Night, monkeypatch: pytest.MonkeyPatch) -> None:
    """Which file, why, and how to see it; read-only and full are told apart."""
    for number, remedy in (
        (errno.ENOSPC, "df -h /var/lib/x"),
        (errno.EROFS, "findmnt -T /var/lib/x"),
    ):

        def refuses(*_: object, number: int = number, **__: object) -> int:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr(files, "_write_new", refuses)
        with pytest.raises(AgentError) as raised:
            files.write_whole(Path("/var/lib/x/guard.nft"), "table", mode=0o600)
        night.now += STEP
        ended = quiet_pass(VM.but(time=night.now))
        ended = replace(ended, failures=(("save guard", raised.value),))
        snapshot = night.reporter.report(ended)
        said = text(json.loads(json.dumps(document(snapshot))))

        assert f"cannot write /var/lib/x/guard.nft: {os.strerror(number)}" in said
        assert remedy in said
    assert "guard.nft" in night.logged("failed")["message"]


def test_another_ipsec_program(night: Night) -> None:
    """Which policy of whom lets packets past, and how to find it."""
    selector = PolicySelector(Direction.OUT, ip_network("0.0.0.0/0"), ip_network("10.0.0.0/24"))
    strange = Policy(selector, 1, esp=False, blocks=False)

    said = in_time(night, VM.but(policies=(*VM.observed.policies, strange)), "policies-bypassed")

    assert "10.0.0.0/24" in said
    assert "packets bypass IPsec in clear" in said
    assert "ip xfrm policy" in said


def test_a_foreign_setdefault(night: Night) -> None:
    """What the kernel blocks, and the command that undoes it."""
    said = in_time(
        night, VM.but(default_blocks=(Direction.IN, Direction.OUT)), "policy-default-blocks"
    )

    assert "match no policy (in, out)" in said
    assert "`ip xfrm policy setdefault" in said


def test_a_nat_in_between(night: Night) -> None:
    """The kernel's counter, what it means, and the property."""
    said = ""
    for number in range(18):
        counted = (("XfrmInStateMismatch", 5 * number),)
        said = " ".join(night.look(VM.but(counters=counted)).split())
        if "xfrm-in-state-mismatch" in said:
            break

    assert "ESP arrives in UDP where plain ESP was negotiated" in said
    assert "compare force_udp_encapsulation of both VMs; look for a NAT in between" in said
    assert night.logged("xfrm-in-state-mismatch")["log_level"] == "warning"


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

    said = in_time(night, VM, "proof-failed")

    assert "2 proofs in a row failed (no-esp)" in said
    assert "10.0.0.9" in said
    assert "protocol 50" in said
