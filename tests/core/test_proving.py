"""The low-rate proof: its pace, when it is a problem, and what the status tells."""

from ipaddress import IPv4Address, ip_address

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.config import PROOF_LONGEST, PROOF_SHORTEST
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.proof import Finding, Verdict
from ipsec_agent.core.proving import (
    AT_ONCE,
    Proof,
    Proofs,
    judged,
    pace,
    proof_problems,
    provable,
    summary,
)
from ipsec_agent.core.status import document
from tests.core.test_status import snapshot, states
from tests.vm import NOW, OWN, PEER, healthy_vm, with_sa

VM = with_sa(healthy_vm())
GOOD = Finding(Verdict.PROVEN, "packets to 10.0.0.9 are ESP both ways")
BAD = Finding(Verdict.NO_ESP, "no ESP comes back from 10.0.0.9", "have protocol 50 pass")


def failed(times: int, peer: str = "10.0.0.9", found: Finding = BAD) -> Proof:
    """A peer whose proof has failed so often, at times one minute apart."""
    proof = None
    for number in range(times):
        proof = judged(proof, ip_address(peer), found, NOW + 60 * number)
    assert proof
    return proof


@given(st.floats(PROOF_SHORTEST, PROOF_LONGEST), st.integers(0, 5000))
def test_pace(seconds: float, peers: int) -> None:
    """Each has its turn once in that time, but four a second at the most."""
    size, gap = pace(seconds, peers)

    assert 1 <= size <= AT_ONCE
    assert size / gap <= 4 + 1e-9
    whole = gap * peers / size
    assert whole <= max(seconds, peers / 4, gap) * 1.3
    assert whole >= min(seconds, gap * peers) * 0.99


def test_one_failure_is_no_problem() -> None:
    """The second in a row is, until one succeeds."""
    assert proof_problems([failed(1)]) == ()

    (problem,) = proof_problems([failed(2)])

    assert problem.code == "proof-failed"
    assert problem.severity == "warning"
    assert "2 proofs in a row failed (no-esp): no ESP comes back from 10.0.0.9" in problem.message
    assert problem.hint == "have protocol 50 pass"
    after = judged(failed(2), PEER, GOOD, NOW + 200)
    assert proof_problems([after]) == ()
    assert proof_problems([judged(after, PEER, BAD, NOW + 260)]) == ()


def test_many_that_fail_are_one_problem_for_each_verdict() -> None:
    """In the words of the first; a fleet makes no list of 1,000."""
    proofs = [failed(2, str(IPv4Address("10.0.1.0") + number)) for number in range(50)]
    black = failed(3, "10.0.2.9", Finding(Verdict.BLACK_HOLE, "more than 1300 bytes are lost"))

    one, other = proof_problems([*proofs, black])

    assert "the same with 10.0.1.1, 10.0.1.2, 10.0.1.3 and 46 more" in one.message
    assert "more than 1300 bytes are lost" in other.message
    assert "verify 10.0.2.9" in other.hint
    assert one.subject != other.subject


def test_the_clock_is_set_back() -> None:
    """A failure began no later than now."""
    assert judged(failed(1), PEER, BAD, NOW - 9999).first == NOW - 9999
    assert failed(3).first == NOW


def test_who_is_proved() -> None:
    """Only a peer with an SA each way, which the config encrypts."""
    both = VM.but(states=states(1, 1))
    promise = Promise.of(VM.config)

    (pair,) = provable(Drift(both.desired, both.observed), promise, optional=False)

    assert (pair.peer, pair.own, pair.encrypted) == (PEER, OWN, True)
    for fewer in (states(1, 1)[:1], states(1, 1)[1:], ()):
        vm = VM.but(states=fewer)
        assert provable(Drift(vm.desired, vm.observed), promise, optional=False) == ()
    clear = Promise(promise.ipsec, (*promise.no_ipsec, *Promise.of(VM.config).ipsec))
    assert provable(Drift(both.desired, both.observed), clear, optional=False) == ()


def test_status() -> None:
    """Each peer's newest proof, and how many there are of each verdict."""
    assert summary(Proofs()) is None
    plain = document(snapshot(VM))
    assert plain["proof"] is None
    assert plain["peers"][0]["proof"] is None

    proofs = Proofs(60, (failed(2), failed(1, "10.0.0.7", GOOD)))
    shown = document(replace(snapshot(VM), proofs=proofs))

    assert shown["proof"] == {
        "seconds": 60,
        "proven": 1,
        "failing": 1,
        "verdicts": {"no-esp": 1, "proven": 1},
        "oldest": NOW,
        "newest": NOW + 60,
    }
    assert shown["peers"][0]["proof"] == {
        "proven": False,
        "verdict": "no-esp",
        "message": "no ESP comes back from 10.0.0.9",
        "hint": "have protocol 50 pass",
        "time": NOW + 60,
        "failures": 2,
    }
