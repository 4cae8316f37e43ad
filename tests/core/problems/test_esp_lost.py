"""ESP that does not arrive, though IKE does, is an error; jobs that only send are none."""

from hypothesis import given, settings
from hypothesis import strategies as st

from ipsec_agent.core.health import Memory
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.core.problems.esp_lost import (
    EACH,
    ENOUGH,
    IN_TURN,
    LATER,
    PROBED_AT_ONCE,
    Trial,
    followed,
    lost,
    to_probe,
    waits,
)
from ipsec_agent.core.problems.peer_faults import Hearing
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.traffic import ONE_WAY_AFTER, Peer, Way
from tests.examples import examples
from tests.vm import NOW, OWN, PEER, healthy_vm, with_sa

VM = with_sa(healthy_vm())
LONG = int(ONE_WAY_AFTER + 2 * EACH * ENOUGH)


class Pings:
    """A ping a second to a peer, each in a pass; what comes back is the test's."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.sent = self.back = 0
        self.probes: list[float] = []

    def at(self, after: float, *, heard: float | None, answers: bool = False) -> list[Problem]:
        """The pass so many seconds after NOW; the latest word of IKE came then.

        Args:
            answers: the peer answers a probe.
        """
        self.sent += 1
        states = (
            SecurityAssociation(OWN, PEER, 7, 1, packets=self.sent),
            SecurityAssociation(PEER, OWN, 8, 1, packets=self.back),
        )
        known = {} if heard is None else {str(PEER): Hearing(answered=NOW + heard)}
        vm = VM.but(time=NOW + after, states=states)
        found = vm.assess(self.memory, heard=known)
        self.memory = found.memory
        if to_probe(self.memory.trials, NOW + after):
            self.probes.append(after)
            self.back += answers
        return list(found.problems)


def test_sixty_of_sixty_pings_lost() -> None:
    """An error that names the peer and says what to let pass."""
    pings, shown = Pings(), []
    for after in range(60):
        shown = pings.at(after, heard=after)
        early = len(pings.probes) < ENOUGH or after == pings.probes[ENOUGH - 1]
        assert not early or {problem.code for problem in shown} <= {"peer-one-way"}

    (problem,) = (one for one in shown if one.severity is not Severity.INFO)
    assert (problem.code, problem.severity) == ("peer-esp-lost", Severity.ERROR)
    assert problem.message.startswith("10.0.0.9 answers IKE, but no ESP has come back from it")
    assert "protocol 50" in problem.hint
    assert pings.probes[:ENOUGH] == [ONE_WAY_AFTER + EACH * n for n in range(ENOUGH)]


def test_it_lasts_until_a_packet_comes() -> None:
    """For hours, with a probe a minute; the first packet ends it."""
    pings = Pings()
    for after in range(LONG):
        pings.at(after, heard=after)
    before = len(pings.probes)
    for after in range(LONG, LONG + 3600, 20):
        codes = [problem.code for problem in pings.at(after, heard=after)]
        assert codes == ["peer-esp-lost"]
    assert len(pings.probes) - before <= 3600 / LATER + 1

    pings.back += 1
    assert pings.at(LONG + 3600, heard=LONG + 3600) == []


def test_a_job_that_only_sends() -> None:
    """It is answered by the kernel of whom it sends to, and no problem at all soon after."""
    pings = Pings()
    for after in range(10 * LONG):
        codes = {problem.code for problem in pings.at(after, heard=after, answers=True)}
        assert codes <= {"peer-one-way"}


def test_a_dead_peer() -> None:
    """It answers no IKE either, and charon will say so: a VM that dies must not be an error."""
    for heard in (None, 0.0, ONE_WAY_AFTER):
        pings = Pings()
        for after in range(2 * LONG):
            codes = {problem.code for problem in pings.at(after, heard=heard)}
            assert codes <= {"peer-one-way"}


def one_way(number: int) -> Peer:
    """A peer to which packets only go out."""
    return Peer(PEER + number, NOW, outward=Way(9, 900, last=NOW, alone=NOW - 60))


@given(
    peers=st.integers(0, 3 * PROBED_AT_ONCE),
    steps=st.lists(st.floats(0.01, 1e4), max_size=10),
    back=st.floats(0, 1e9),
)
@settings(deadline=None, max_examples=examples(30))
def test_probes_are_few(peers: int, steps: list[float], back: float) -> None:
    """Never more than so many in a pass, whatever the clock does, and each has its turn."""
    crowd = [one_way(number) for number in range(peers)]
    memory: tuple[Trial, ...] = ()
    now = NOW
    probed = set()
    for step in (*steps, -back - 1e6, *([EACH] * 30)):
        now += step
        memory = followed(crowd, memory, now)
        assert len(memory) == peers
        assert len(to_probe(memory, now)) <= PROBED_AT_ONCE
        probed |= set(to_probe(memory, now)) if now < NOW else set()
    assert len(probed) == peers


def test_the_next_probe_is_not_late() -> None:
    """A pass is due for it, until there were enough."""
    assert not waits(())
    assert waits((Trial(PEER, "out", NOW, NOW, ENOUGH),))
    assert not waits((Trial(PEER, "out", NOW, NOW, ENOUGH + 1),))
    # One who is sent to and sends nothing has time.
    assert not waits((Trial(PEER, "in", NOW, NOW, 1),))


def test_a_probe_in_turn_asks_for_no_answer() -> None:
    """Where the peer only sends, its silence is nothing."""
    heard = {str(PEER): Hearing(answered=NOW)}
    for way, gone in (("out", {PEER}), ("in", set())):
        assert lost((Trial(PEER, way, NOW - 600, NOW - 9, 9 * ENOUGH),), heard, NOW) == gone


class Two:
    """A job that sends to another VM, each with an agent; ESP may be lost either way.

    Behind the other's SA a firewall drops what is not for its job, without a word.
    """

    def __init__(self, *, there: bool, back: bool, interval: int, late: int) -> None:
        self._arrives = (there, back)
        self._turns = ((0, interval), (late, interval))
        self._memories = [Memory(), Memory()]
        self._out, self._in = [0, 0], [0, 0]
        self.probes = [0, 0]

    def _send(self, who: int) -> None:
        self._out[who] += 1
        self._in[1 - who] += self._arrives[who]

    def run(self, seconds: int) -> list[list[str]]:
        """The codes that the sender showed, pass after pass."""
        shown = []
        for after in range(seconds):
            self._send(0)
            for who, (first, interval) in enumerate(self._turns):
                probing = waits(self._memories[who].trials)
                if (after - first) % (min(interval, int(EACH)) if probing else interval) == 0:
                    codes = self._pass(who, after)
                    shown += [] if who else [codes]
        return shown

    def _pass(self, who: int, after: int) -> list[str]:
        states = (
            SecurityAssociation(OWN, PEER, 7, 1, packets=self._out[who]),
            SecurityAssociation(PEER, OWN, 8, 1, packets=self._in[who]),
        )
        vm = VM.but(time=NOW + after, states=states)
        heard = {str(PEER): Hearing(answered=NOW + after)}
        found = vm.assess(self._memories[who], heard=heard)
        self._memories[who] = found.memory
        for _ in to_probe(found.memory.trials, NOW + after):
            self.probes[who] += 1
            self._send(who)
        return [problem.code for problem in found.problems]


@given(interval=st.integers(1, 10), late=st.integers(0, 9))
@settings(deadline=None, max_examples=examples(10))
def test_a_firewall_that_answers_no_probe(interval: int, late: int) -> None:
    """The other VM sends a packet in its turn: ESP does come back, and nothing is wrong."""
    two = Two(there=True, back=True, interval=interval, late=late)

    assert "peer-esp-lost" not in {code for codes in two.run(240) for code in codes}
    # One in half a minute costs nobody anything.
    assert 2 < two.probes[1] <= 240 / IN_TURN


@given(there=st.booleans(), interval=st.integers(1, 10), late=st.integers(0, 9))
@settings(deadline=None, max_examples=examples(10))
def test_the_other_vm_hides_no_loss(there: bool, interval: int, late: int) -> None:
    """Where ESP is lost on the way there, or back, the sender says so, and goes on to."""
    two = Two(there=there, back=not there, interval=interval, late=late)

    shown = two.run(150)

    assert all("peer-esp-lost" in codes for codes in shown[-5:])
