"""A fault with a peer lasts until a handshake succeeds or the peer is gone, however long."""

from collections.abc import Mapping
from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.health import Memory
from ipsec_agent.core.observed import IkeSa, SecurityAssociation
from ipsec_agent.core.observed_peers import Neighbour, RememberedPeer
from ipsec_agent.core.problems.peer_faults import (
    FORGOTTEN_AFTER,
    GONE_AFTER,
    IDENTITY_CODES,
    UNTRIED,
    Hearing,
    Suspect,
    stayed,
)
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity, healthy
from tests.vm import NOW, OTHER, OWN, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()
P = str(PEER)
SAID = "refuses this VM's certificate or signature"
REFUSED, SILENT = "peer-refuses-us", "peer-silent"
DAY = 86_400.0


def line(code: str, after: float, peer: str = P, text: str = "it failed") -> LogLine:
    """A line of charon's log, so many seconds after NOW."""
    return LogLine(code, text, peer, "look", NOW + after)


class Watch:
    """A VM whose passes follow one another; what charon's log told of peers is kept."""

    def __init__(self, vm: Vm = VM) -> None:
        self.vm = vm
        self.memory = Memory()
        self.heard: dict[str, Hearing] = {}
        self.problems: tuple[Problem, ...] = ()

    def tell(self, peer: str = P, **times: float) -> None:
        """The log told something of a peer."""
        times = {name: NOW + after for name, after in times.items()}
        self.heard[peer] = replace(self.heard.get(peer, Hearing()), **times)

    def at(self, after: float, *lines: LogLine, vm: Vm | None = None) -> list[tuple[str, Severity]]:
        """A pass, so many seconds after NOW; what it shows."""
        vm = (vm or self.vm).but(time=NOW + after)
        found = vm.assess(self.memory, lines=lines, heard=self.heard)
        self.memory, self.problems = found.memory, found.problems
        return [(problem.code, problem.severity) for problem in found.problems]

    @property
    def suspects(self) -> tuple[Suspect, ...]:
        """What is remembered."""
        return self.memory.suspects


def nobody(vm: Vm = VM) -> Vm:
    """The VM whose kernel finds the peer on no link."""
    return vm.but(neighbours=(Neighbour(PEER, failed=True),))


def there(after: float, vm: Vm = VM) -> Vm:
    """The VM whose kernel has had an answer of the peer's."""
    return vm.but(neighbours=(Neighbour(PEER, NOW + after),))


def with_others(vm: Vm = VM) -> Vm:
    """The VM that has an SA with another peer."""
    return with_sa(vm, str(OTHER))


def test_a_refusal_lasts_though_nobody_tries_again() -> None:
    """For days, and it says since when nobody has; it never makes the VM healthy again."""
    watch = Watch()
    assert watch.at(1, line(REFUSED, 0)) == [(REFUSED, Severity.WARNING)]
    assert watch.problems[0].message == f"{P} {SAID} (charon: it failed)"

    for after in (UNTRIED + 1, DAY, 3 * DAY):
        assert watch.at(after) == [(REFUSED, Severity.WARNING)]
        assert not healthy(watch.problems)
        assert watch.problems[0].message == (
            f"{P} {SAID} (charon: it failed); last seen at 2027-01-15 08:00:00 UTC, and no attempt"
            " since"
        )


def test_nobody_was_ever_seen_there() -> None:
    """Of an address that never answered it is said, until it does; not of one that had an SA."""
    watch = Watch()
    watch.at(1, line(SILENT, 0))
    watch.at(40)
    nobody = "; nobody was ever seen there"
    assert watch.problems[0].message.endswith(nobody)
    watch.at(200)
    assert watch.problems[0].message.endswith(
        f"{nobody}, last asked at 2027-01-15 08:00:00 UTC, and no attempt since"
    )
    had = VM.but(remembered=(RememberedPeer(PEER, NOW - DAY),))
    watch.at(201, vm=had)
    assert nobody not in watch.problems[0].message
    watch.tell(answered=202)
    watch.at(203)
    assert nobody not in watch.problems[0].message


def test_a_handshake_ends_it() -> None:
    """By the SA that is there, or by the log where it was there between two passes only."""
    by_sa, by_log = Watch(), Watch()
    for watch in (by_sa, by_log):
        watch.at(1, line(REFUSED, 0))
    made = SecurityAssociation(PEER, OWN, 8, 1, added=int(NOW + 500))

    assert by_sa.at(501, vm=with_sa(VM).but(states=(made,))) == []
    by_log.tell(succeeded=500)
    assert by_log.at(501) == []
    # What the log said before does not come back, what it says later is another fault.
    assert by_log.at(502, line(REFUSED, 499)) == []
    assert by_log.at(504, line(REFUSED, 503)) == [(REFUSED, Severity.WARNING)]


def with_ike(seconds: int, *, state: str = "ESTABLISHED") -> Vm:
    """The VM that has had an IKE_SA with the peer for so long, and no SA in it."""
    assert VM.observed.charon is not None
    ike = IkeSa(1, "x", state, OWN, PEER, initiator=True, age=seconds)
    return VM.but(charon=replace(VM.observed.charon, sas=(ike,)))


@pytest.mark.parametrize("code", sorted(IDENTITY_CODES))
def test_an_ike_sa_disproves_what_is_about_identities(code: str) -> None:
    """One that is younger, also in a fault that was kept over a restart; no older one."""
    watch = Watch()
    watch.at(1, line(code, 0))
    assert watch.at(500, vm=with_ike(501)) == [(code, Severity.WARNING)]
    assert watch.at(501, vm=with_ike(3, state="CONNECTING")) == [(code, Severity.WARNING)]
    assert watch.at(502, vm=with_ike(3)) == []
    assert watch.at(800) == []


def test_an_ike_sa_that_nobody_saw() -> None:
    """As one of a rehearsal is over before the next look: the log has told of it."""
    watch = Watch()
    watch.at(1, line(REFUSED, 0), line("selectors-differ", 0))
    watch.tell(proved=5)
    assert watch.at(6, line(REFUSED, 4)) == [("selectors-differ", Severity.WARNING)]
    assert REFUSED in dict(watch.at(8, line(REFUSED, 7)))


def test_an_ike_sa_says_nothing_of_proposals() -> None:
    """What an SA for packets needs is agreed upon later; that it was tried is said."""
    watch = Watch()
    watch.at(1, line("selectors-differ", 0))
    assert watch.at(500, vm=with_ike(3)) == [("selectors-differ", Severity.WARNING)]
    what = "and this VM do not agree on what to encrypt"
    said = f"{P} {what} (charon: it failed); last seen at 2027-01-15 08:00:00 UTC"
    assert watch.problems[0].message == said
    # The IKE_SA is gone again: it was tried all the same.
    watch.at(900)
    assert watch.problems[0].message == said


@pytest.mark.parametrize("by", ["the log", "an IKE_SA that connects"])
def test_an_attempt_that_nothing_came_of(by: str) -> None:
    """It is not said that nobody has tried since."""
    watch = Watch()
    watch.tell(answered=-500)
    watch.at(1, line(SILENT, 0))
    watch.at(200)
    assert ", and no attempt since" in watch.problems[0].message
    if by == "the log":
        watch.tell(tried=250)
    watch.at(251, vm=VM if by == "the log" else with_ike(0, state="CONNECTING"))
    assert "attempt" not in watch.problems[0].message
    assert watch.problems[0].message.endswith("; last seen at 2027-01-15 08:00:00 UTC")
    # Of an attempt that fails in turn nothing later is known.
    watch.at(300, line(SILENT, 300))
    watch.at(500)
    assert "last seen at 2027-01-15 08:05:00 UTC, and no attempt since" in watch.problems[0].message


def test_answers_of_any_kind_are_no_handshake() -> None:
    """A peer that is there and refuses is not gone."""
    watch = Watch()
    watch.at(1, line(REFUSED, 0))
    for after in range(60, 3600, 60):
        watch.tell(answered=after)
        assert watch.at(after + 1, vm=nobody()) == [(REFUSED, Severity.WARNING)]


def test_a_peer_that_only_has_no_ike() -> None:
    """It answers its neighbours, and so is there: an information while others answer, for ever."""
    watch = Watch(with_others())
    watch.at(0, line(SILENT, 0))
    for after in range(60, 3 * int(GONE_AFTER), 60):
        assert watch.at(after, line(SILENT, after), vm=there(after, watch.vm)) == [
            (SILENT, Severity.INFO)
        ]


def test_silence_of_all() -> None:
    """Where nobody answers, it may be this VM."""
    watch = Watch()
    watch.at(0, line(SILENT, 0))

    assert watch.at(31, line(SILENT, 0)) == [(SILENT, Severity.WARNING)]
    assert watch.at(32, vm=with_others()) == [(SILENT, Severity.INFO)]


def test_a_vm_that_vanishes_and_whose_address_is_reused() -> None:
    """A scale-in: this VM stays healthy throughout, says since when, and forgets it after a day."""
    watch = Watch(with_others())
    for after in range(0, int(GONE_AFTER), 10):
        watch.at(after, line(SILENT, after), vm=nobody(watch.vm))
        assert healthy(watch.problems), watch.problems
        assert {problem.code for problem in watch.problems} <= {SILENT}

    assert watch.at(GONE_AFTER, vm=nobody(watch.vm)) == [("peer-gone", Severity.INFO)]
    assert watch.problems[0].message == (
        f"{P} has been gone since 2027-01-15 08:00:00 UTC: it answers neither IKE nor neighbour"
        " discovery"
    )
    # Another one has its address, and fails in its own way, until it does not.
    watch.tell(answered=GONE_AFTER + 100)
    refused = line(REFUSED, GONE_AFTER + 100)
    assert (REFUSED, Severity.WARNING) in watch.at(GONE_AFTER + 101, refused)
    watch.tell(succeeded=GONE_AFTER + 200)
    assert watch.at(GONE_AFTER + 201) == []


def test_what_is_gone_is_forgotten_after_a_day() -> None:
    """And begins again where somebody still sends to it."""
    watch = Watch(with_others())
    watch.at(0, line(SILENT, 0), vm=nobody(watch.vm))

    assert watch.at(FORGOTTEN_AFTER - 1, vm=nobody(watch.vm)) == [("peer-gone", Severity.INFO)]
    assert watch.at(FORGOTTEN_AFTER, vm=nobody(watch.vm)) == []
    assert not watch.memory.suspects
    watch.at(FORGOTTEN_AFTER + 1, line(SILENT, FORGOTTEN_AFTER + 1))
    assert [one.gone for one in watch.suspects] == [0]


def test_a_peer_beyond_a_router() -> None:
    """Its neighbours are not ours: it is gone by its silence, as long as somebody tries."""
    watch = Watch(with_others())
    watch.at(0, line(SILENT, 0))
    assert watch.at(DAY) == [(SILENT, Severity.INFO)]
    assert watch.at(DAY + 1, line(SILENT, DAY + 1)) == []

    watch = Watch(with_others())
    watch.at(0, line(SILENT, 0))
    assert watch.at(GONE_AFTER + 1, line(SILENT, GONE_AFTER)) == [("peer-gone", Severity.INFO)]


def test_a_farewell() -> None:
    """A VM that is stopped in order is gone at once; one that comes back and refuses is not."""
    watch = Watch()
    watch.tell(answered=0, farewell=0, succeeded=-100)
    assert watch.at(21, line(SILENT, 20)) == [("peer-gone", Severity.INFO)]
    assert watch.problems[0].message.endswith(": it has ended its IKE_SA")

    watch.tell(answered=60)
    assert watch.at(100, line(REFUSED, 60)) == [(REFUSED, Severity.WARNING)]
    assert watch.at(200) == [(REFUSED, Severity.WARNING)]


def test_a_farewell_to_one_of_two() -> None:
    """A duplicate that is ended is none: the peer has stayed."""
    heard = {P: Hearing(answered=NOW, farewell=NOW)}
    charon = with_sa(VM).observed.charon

    assert stayed(heard, charon, NOW + 10) == (P,)
    assert stayed(heard, charon, NOW + 1) == ()
    assert stayed(heard, VM.observed.charon, NOW + 10) == ()
    assert stayed({}, charon, NOW + 10) == ()


def test_a_peer_that_has_left_the_subnets() -> None:
    """What the config no longer wants fails no more; one that it never had is told of briefly."""
    far = "192.0.2.7"
    watch = Watch()
    assert watch.at(1, line(REFUSED, 0), line(REFUSED, 0, far)) == [
        (REFUSED, Severity.WARNING),
        (REFUSED, Severity.WARNING),
    ]
    assert watch.at(200) == [(REFUSED, Severity.WARNING)]
    assert [one.peer for one in watch.suspects] == [P]


def test_a_certificate_out_of_its_time() -> None:
    """It is not told beside that that it is not trusted, until that is so for another reason."""
    outdated, untrusted = "peer-certificate-invalid", "peer-not-trusted"
    watch = Watch()
    assert watch.at(1, line(outdated, 0), line(untrusted, 0)) == [(outdated, Severity.WARNING)]
    assert [one.code for one in watch.suspects] == [outdated]

    later = watch.at(100, line(untrusted, 99))
    assert {code for code, _ in later} == {outdated, untrusted}
    assert watch.at(201, line(outdated, 200), line(untrusted, 200.5)) == [
        (outdated, Severity.WARNING)
    ]


def test_a_start_is_not_remembered() -> None:
    """What a peer says while it starts counts neither now nor at its next start."""
    says = "received NO_PROPOSAL_CHOSEN notify error"
    watch = Watch()
    assert watch.at(1, line("proposals-differ", 0, text=says)) == []
    watch.at(200)
    assert watch.suspects == ()
    assert watch.at(DAY, line("proposals-differ", DAY, text=says)) == []


TIMES = st.floats(0, 4000, allow_nan=False)
EVENTS = st.lists(
    st.tuples(TIMES, st.sampled_from(["refused", "silent", "answered", "nobody", "there"])),
    min_size=1,
    max_size=30,
)


@given(EVENTS)
def test_nothing_but_success_or_absence_heals(events: list[tuple[float, str]]) -> None:
    """Whatever comes in whatever order: after a refusal the VM is healthy only while the peer has
    not answered for GONE_AFTER, and was asked so late."""
    watch, answers, refused, silent = Watch(with_others()), 0.0, False, 0.0
    for after, what in sorted(events):
        vm, lines = watch.vm, []
        if what == "refused":
            lines = [line(REFUSED, after)]
            watch.tell(answered=after)
            answers, refused = after, True
        elif what == "answered":
            watch.tell(answered=after)
            answers = after
        elif what == "there":
            vm = there(after, vm)
            answers = max(answers, after) if watch.suspects else answers
        elif what == "silent":
            lines, silent = [line(SILENT, after)], after
        elif watch.suspects:
            vm, silent = nobody(vm), after
        watch.at(after, *lines, vm=vm)
        if refused and silent - answers < GONE_AFTER:
            assert not healthy(watch.problems)


@given(
    heard=st.builds(Hearing, *(st.sampled_from([0.0, NOW - 5000, NOW, NOW + 9e8]) for _ in "abc")),
    at=st.sampled_from([NOW - 4e8, NOW, NOW + 4e8]),
)
def test_a_clock_that_jumps(heard: Hearing, at: float) -> None:
    """Nothing is raised, and what is told is a moment that can be written."""
    known: Mapping[str, Hearing] = {str(ip_address(P)): heard}
    first = VM.assess(lines=(line(SILENT, 0), line(REFUSED, 0)), heard=known)
    VM.but(time=at).assess(first.memory, heard=known)
