"""When peers were cut off: what begins and ends an outage, and what does not."""

from ipaddress import IPv4Address, ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.doctor.facts import Facts
from ipsec_agent.core.doctor.outages import outages
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.outages import (
    AGAIN,
    KEPT,
    OF_ONE,
    OLDEST,
    Cut,
    Memory,
    Outage,
    cut_off,
    entry,
    followed,
    over_unseen,
    read,
    resumed,
    turned,
)
from ipsec_agent.core.problems.charon import SILENT
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Suspect
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity
from ipsec_agent.core.proof import Verdict
from ipsec_agent.core.proving import Proof
from ipsec_agent.core.traffic import Peer, Way
from tests.core.test_status import states
from tests.examples import examples
from tests.vm import NOW, OTHER, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()
SILENCE = LogLine(SILENT, "giving up", str(PEER), "see UDP 500", NOW - 30)
HEARD = Hearing(answered=NOW - 500)
SUSPECT = Suspect(str(PEER), (Fault(SILENCE, NOW - 100),), HEARD)
CUT = {PEER: Cut(NOW - 100, SILENT, "10.0.0.9 does not answer IKE")}


def cut(vm: Vm, *suspects: Suspect, **more: object) -> dict[object, Cut]:
    """Who is cut off from this VM."""
    given_ = {"traffic": (), "problems": (), **more}
    return dict(cut_off(Drift(vm.desired, vm.observed), suspects=suspects, **given_))  # type: ignore[arg-type]


def test_a_peer_that_fails_without_an_sa() -> None:
    """Since its first failure, or since it last had an SA; not while it has one."""
    assert cut(VM, SUSPECT) == CUT
    assert cut(with_sa(VM), SUSPECT) == {}
    assert cut(VM, SUSPECT, traffic=(Peer(PEER, NOW),)) == {}
    assert cut(VM, SUSPECT, traffic=(Peer(PEER, NOW - 40),))[PEER].since == NOW - 40
    gone = replace(SUSPECT, heard=Hearing(farewell=NOW - 20))
    assert cut(VM, gone) == {}
    assert cut(VM) == {}


def test_nobody_was_ever_there() -> None:
    """Who asks for an address where nobody lives cuts nobody off; one sign of life is enough."""
    nobody = replace(SUSPECT, heard=Hearing(tried=NOW - 100))
    refuses = LogLine("peer-refuses-us", "it refuses", str(PEER), "", NOW - 30)
    assert cut(VM, nobody) == {}
    assert cut(VM, replace(nobody, seen=NOW - 500)) == CUT
    assert cut(VM, replace(nobody, heard=Hearing(succeeded=NOW - 500))) == CUT
    assert cut(VM, replace(nobody, faults=(Fault(refuses, NOW - 100),))).keys() == {PEER}
    # By what is remembered: an SA of before, a minute ago or a boot ago, or another outage.
    assert cut(VM, nobody, traffic=(Peer(PEER, NOW - 40),)).keys() == {PEER}
    assert cut(VM.but(remembered=(RememberedPeer(PEER, NOW - 9e4),)), nobody) == CUT
    assert cut(VM, nobody, before=(Outage(PEER, 1.0, 2.0, SILENT, "x"),)) == CUT


def test_a_peer_that_has_an_sa_and_nothing_comes_back() -> None:
    """By the probes of the agent, or by its proof."""
    vm = with_sa(VM).but(states=states(90, 0))
    lost = Problem("peer-esp-lost", Severity.ERROR, "x", "y", str(PEER))
    peers = (Peer(PEER, NOW, outward=Way(90, 900, NOW, NOW - 60)),)
    assert cut(vm, traffic=peers, problems=(lost,))[PEER].since == NOW - 60

    proof = Proof(PEER, Verdict.NO_ESP, "no ESP comes back", "", NOW, 2, NOW - 70)
    assert cut(vm, traffic=peers, proofs=(proof,))[PEER].reason == "no ESP comes back"
    assert cut(vm, proofs=(replace(proof, failures=1),)) == {}
    assert cut(vm, proofs=(replace(proof, verdict=Verdict.BLACK_HOLE),)) == {}


def test_from_when_to_when() -> None:
    """And again within 30 s is the same one."""
    lasts = followed((), CUT, NOW)
    assert lasts == (Outage(PEER, NOW - 100, 0.0, SILENT, "10.0.0.9 does not answer IKE"),)
    assert followed(lasts, CUT, NOW + 10) == lasts

    (over,) = ended = followed(lasts, {}, NOW + 20)
    assert (over.begin, over.end) == (NOW - 100, NOW + 20)
    assert followed(ended, {}, NOW + 30) is ended
    assert followed(ended, CUT, NOW + 30) == lasts
    later = NOW + 20 + AGAIN
    assert len(followed(ended, {PEER: replace(CUT[PEER], since=later)}, later)) == 2


def test_a_fault_that_is_older_than_the_last_outage() -> None:
    """As one that optional mode has interrupted: in between the peer was reached."""
    ended = followed(followed((), CUT, NOW), {}, NOW + 20)

    first, second = followed(ended, CUT, NOW + 20 + AGAIN + 5)

    assert (first.begin, first.end) == (NOW - 100, NOW + 20)
    assert (second.begin, second.end) == (NOW + 20 + AGAIN + 5, 0.0)


def test_the_clock_is_set() -> None:
    """Each lasts as long as it did, and none begins by it."""
    lasts = followed((), CUT, NOW)
    for by in (86_400.0 * 365, -86_400.0 * 365):
        (one,) = turned(lasts, NOW + by, by)
        assert one.begin == NOW - 100 + by
        begun = followed((), CUT, NOW + by, stepped=NOW + by)
        assert [one.begin for one in begun] == [NOW + by]
    (over,) = turned(followed(lasts, {}, NOW), NOW - 3600, -3600)
    assert (over.begin, over.end) == (NOW - 3700, NOW - 3600)
    assert turned((), NOW, 9e6) == ()


def test_a_restart() -> None:
    """What lasts goes on; what has ended meanwhile ended when that was last known."""
    lasts = followed((), CUT, NOW)
    taken = resumed(lasts, NOW + 5, NOW + 5000)
    assert taken == lasts
    assert over_unseen(taken, CUT, NOW + 5) == lasts
    assert over_unseen(taken, {}, NOW + 5)[0].end == NOW + 5
    assert resumed((), 0.0, NOW) == ()
    # The clock was set back meanwhile.
    assert resumed(lasts, NOW + 5, NOW - 995)[0].begin == NOW - 1100


def test_after_a_month_it_is_forgotten() -> None:
    """Where nothing else happens, too."""
    ended = followed(followed((), CUT, NOW), {}, NOW)
    assert followed(ended, {}, NOW + OLDEST - 1) == ended
    assert followed(ended, {}, NOW + OLDEST + 1) == ()


@settings(max_examples=examples(50))
@given(
    st.lists(
        st.tuples(st.sets(st.integers(0, 5)), st.floats(-9e6, 9e6)),
        max_size=25,
    )
)
def test_whatever_happens(looks: list[tuple[set[int], float]]) -> None:
    """It is bounded, each peer has at most one that lasts, and none ends before it began."""
    memory: Memory = ()
    now, numbers = NOW, IPv4Address("10.0.0.10")
    for ones, passed in looks:
        now = max(now + passed, 10.0)
        told: dict[Address, Cut] = {numbers + one: Cut(now - 5, SILENT, "x") for one in ones}
        memory = followed(memory, told, now)
        lasting = [one.peer for one in memory if not one.end]
        assert sorted(lasting) == sorted(told)
        assert sum(one.peer == numbers for one in memory) <= OF_ONE
        assert tuple(read(map(entry, memory))) == memory


def test_a_fleet_is_bounded() -> None:
    """What lasts is kept before what is over."""
    over = tuple(
        Outage(IPv4Address("10.1.0.0") + one, NOW + one, NOW + 500, SILENT, "x")
        for one in range(400)
    )
    found = followed(over, CUT, NOW + 600)
    assert len(found) == KEPT
    assert PEER in {one.peer for one in found}


def test_doctor() -> None:
    """From when to when, why, and what to type; with and without an agent."""
    known = (
        Outage(ip_address(str(OTHER)), NOW - 9000, NOW - 1800, "peer-esp-lost", "no ESP came"),
        Outage(PEER, NOW - 60, 0.0, SILENT, "10.0.0.9 does not answer IKE"),
    )
    status = {"outages": [entry(one) for one in known]}

    now, before = outages(Facts("/x", status=status))

    assert now.message.startswith("10.0.0.9 has been cut off since 2027-01-15 07:59:00 UTC: ")
    assert now.command == "ipsec-agent verify 10.0.0.9"
    assert "until 2027-01-15 07:30:00 UTC (2 h): no ESP came" in before.message
    assert before.command == "grep 10.0.0.66 /var/log/ipsec-agent/agent.log"
    assert {one.severity for one in (now, before)} == {Severity.INFO}
    over, same = outages(Facts("/x", outages=known, units=()))
    assert over.message == (
        "10.0.0.9 was cut off from 2027-01-15 07:59:00 UTC until the agent ended:"
        " 10.0.0.9 does not answer IKE"
    )
    assert over.command.startswith("journalctl -u ipsec-agent")
    assert same.message == before.message
    many = tuple(replace(known[0], begin=NOW - 9000 - one) for one in range(25))
    *_, rest = outages(Facts("/x", outages=many))
    assert rest.message == "15 earlier outages of peers"


def test_a_clock_at_the_epoch() -> None:
    """Whatever it says, and however far it is set back, what is told is understood again."""
    for now in (0.0, 0.25, 5.0, 1000.0):
        memory = turned((Outage(PEER, NOW - 60, 0.0, SILENT, "none"),), now, now - NOW)
        memory += turned((Outage(PEER, NOW - 60, NOW - 9, SILENT, "none"),), now, now - NOW)
        memory += followed((), {OTHER: Cut(now - 100, SILENT, "none")}, now)
        told = [entry(one) for one in memory]

        assert len(list(read(told))) == 3
        assert len(list(outages(Facts("/x", status={"outages": told})))) == 3


def test_doctor_and_what_is_no_outage() -> None:
    """An agent of another version may tell of some that this one does not understand."""
    good = entry(Outage(PEER, NOW - 60, 0.0, SILENT, "none"))
    odd = [{**good, "begin": -5.0}, {**good, "begin": 1e300}, {**good, "peer": "x"}, {}, None]

    (only,) = outages(Facts("/x", status={"outages": [*odd, good]}))

    assert only.message.startswith("10.0.0.9 has been cut off")
