"""Events: what two looks tell, and that few are kept whatever happens."""

from collections import Counter

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core import steps
from ipsec_agent.core.config import Config
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.events import (
    BURST,
    FOLDED_FOR,
    LONGEST,
    MOST,
    ROUTINE,
    Event,
    EventKind,
    History,
    Seen,
    followed,
    seen,
)
from ipsec_agent.core.model import CredentialSet
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.errors import KernelError
from tests.configs import config
from tests.core.test_status import states
from tests.examples import examples
from tests.vm import CHARON, NOW, PEER, Vm, healthy_vm, with_sa

CONFIG = config()
LOOK = Seen(CONFIG, NOW, peers=frozenset())
OTHERS: Config = replace(CONFIG)
REFUSED = "line 3: no subnet"


def problem(code: str, subject: str = "", message: str = "it is so") -> Problem:
    """A problem."""
    return Problem(code, Severity.WARNING, message, "do", subject, NOW)


def with_problems(look: Seen, *found: Problem) -> Seen:
    """The look with these problems."""
    return replace(look, problems={(one.code, one.subject): one for one in found})


def history(*looks: Seen, old: tuple[Event, ...] = ()) -> History:
    """What is remembered after these looks, a second apart."""
    made = History(old)
    for number, look in enumerate(looks):
        made = followed(made, replace(look, time=look.time + number))
    return made


def told(*looks: Seen, old: tuple[Event, ...] = ()) -> list[tuple[str, str]]:
    """EventKind and text of the events of these looks, but for the start."""
    return [(one.kind.value, one.text) for one in history(*looks, old=old).events[1:]]


def test_nothing_new() -> None:
    """A look like the one before tells nothing; the first one tells the start."""
    (start,) = history(LOOK, LOOK, LOOK).events

    assert (start.kind, start.text, start.time) == (EventKind.START, "the agent has started", NOW)


def test_problems_come_and_go() -> None:
    """Each once, with its words; one about a peer is the peer's."""
    bad = with_problems(LOOK, problem("peer-silent", str(PEER), "10.0.0.9 is silent"))

    assert told(LOOK, bad, bad, LOOK) == [
        ("problem", "peer-silent: 10.0.0.9 is silent"),
        ("solved", "peer-silent is over: 10.0.0.9 is silent"),
    ]
    events = history(LOOK, bad).events
    assert [one.peer for one in events] == ["", "10.0.0.9"]


def test_peers_lost_and_back() -> None:
    """One by one, or as many at once; not where the kernel could not be asked."""
    one = replace(LOOK, peers=frozenset({PEER}))
    many = replace(LOOK, peers=frozenset(PEER + n for n in range(BURST + 1)))
    unread = replace(LOOK, peers=None)

    assert told(LOOK, one, unread, one, LOOK) == [
        ("peer-up", "SAs with 10.0.0.9"),
        ("peer-lost", "no SA any more with 10.0.0.9"),
    ]
    assert told(many, LOOK) == [
        ("peer-lost", "no SA any more with 6 peers: 10.0.0.9, 10.0.0.10, 10.0.0.11 and 3 more"),
    ]


def test_many_problems_at_once() -> None:
    """They are one event, by their code."""
    found = [problem("peer-silent", f"10.0.1.{n}") for n in range(1, BURST + 2)]

    assert told(LOOK, with_problems(LOOK, *found, problem("charon-down")), LOOK) == [
        ("problem", "peer-silent, 6 of them: 10.0.1.1, 10.0.1.2, 10.0.1.3 and 3 more"),
        ("problem", "charon-down: it is so"),
        ("solved", "peer-silent is over, 6 of them: 10.0.1.1, 10.0.1.2, 10.0.1.3 and 3 more"),
        ("solved", "charon-down is over: it is so"),
    ]


def test_repairs_and_reloads() -> None:
    """Steps after a reload are its own; else they are repairs, unless they are routine."""
    did = replace(LOOK, done=("poke 3 peers", "load the guard", "start charon", "a", "b"))

    assert told(LOOK, did) == [("repair", "repaired: load the guard, start charon, a and 1 more")]
    assert told(LOOK, replace(LOOK, done=("poke 3 peers", "save the time"))) == []
    assert told(LOOK, replace(did, config=OTHERS)) == [
        ("reload", "the config was reloaded: load the guard, start charon, a and 1 more")
    ]
    again = replace(LOOK, config=OTHERS)
    assert told(LOOK, again, again) == [("reload", "the config was reloaded; nothing was to do")]


def test_refused_reloads() -> None:
    """Once, with the reason; also one of before the first look."""
    bad = replace(LOOK, refused=REFUSED)

    assert told(LOOK, bad, bad, LOOK) == [("reload-refused", f"a reload was refused: {REFUSED}")]
    assert told(bad) == [("reload-refused", f"a reload was refused: {REFUSED}")]


def test_rotation() -> None:
    """Another certificate is named; where only the CAs are others, that is said."""
    old = CredentialSet("a", "11", "CN=vm", NOW)
    looks = [replace(LOOK, certificate=one) for one in (old, None, old)]

    assert told(*looks) == []
    assert told(looks[0], replace(LOOK, certificate=replace(old, mark="b", certificate="22"))) == [
        ("rotation", "in force from now on: CN=vm (ends 2027-01-15)")
    ]
    assert told(looks[0], replace(LOOK, certificate=replace(old, mark="c"))) == [
        ("rotation", "in force from now on: another set of CAs")
    ]


def test_folded() -> None:
    """The same again within an hour is one entry, the newest; later it is another one."""
    bad = with_problems(LOOK, problem("flaps"))
    other = with_problems(LOOK, problem("rare"))
    found = history(LOOK, other, *[LOOK, bad] * 12)

    assert Counter(one.kind for one in found.events) == {
        EventKind.START: 1, EventKind.PROBLEM: 2, EventKind.SOLVED: 2,
    }  # fmt: skip
    last = found.events[-1]
    assert (last.text, last.count, last.since, last.time) == (
        "flaps: it is so",
        12,
        NOW + 3,
        NOW + 25,
    )
    late = followed(followed(found, replace(LOOK, time=NOW + 60)), replace(bad, time=NOW + 61))
    assert late.events[-1].count == 13
    gone = replace(LOOK, time=NOW + 62 + FOLDED_FOR)
    later = followed(followed(late, gone), replace(bad, time=NOW + 62 + FOLDED_FOR))
    assert (later.events[-1].text, later.events[-1].count) == ("flaps: it is so", 1)


def test_numbers_do_not_tell_repairs_apart() -> None:
    """Each time another process is killed: that is one event."""
    dead = [replace(LOOK, done=(f"kill charon (pid {pid}): it hangs",)) for pid in (11, 12)]
    (event,) = history(LOOK, *dead).events[1:]

    assert (event.count, event.text) == (2, "repaired: kill charon (pid 12): it hangs")


def test_after_a_restart() -> None:
    """What came and has not gone is not told again; what is new is."""
    bad = with_problems(LOOK, problem("lasts"))
    then = history(LOOK, bad).events

    kept = history(with_problems(LOOK, problem("lasts"), problem("new")), old=then).events
    assert [(one.kind, one.count) for one in kept if "lasts" in one.text] == [
        (EventKind.PROBLEM, 1)
    ]
    assert [one.kind for one in kept if "new" in one.text] == [EventKind.PROBLEM]
    (start,) = [one for one in kept if one.kind is EventKind.START]
    assert start.count == 2
    back = history(bad, old=history(LOOK, bad, LOOK).events).events
    assert [one.count for one in back if one.kind is EventKind.PROBLEM] == [2]


def test_the_commonest_gives_way() -> None:
    """Peers that come and go in large numbers push out each other, and nothing else."""
    bad = with_problems(replace(LOOK, refused=REFUSED), problem("first"))
    looks = [replace(LOOK, peers=frozenset({PEER + n})) for n in range(2 * MOST)]
    found = history(LOOK, bad, *looks).events

    assert len(found) == MOST
    counted = Counter(one.kind for one in found)
    rare = (EventKind.START, EventKind.REFUSED, EventKind.PROBLEM, EventKind.SOLVED)
    assert [counted[kind] for kind in rare] == [1, 1, 1, 1]
    assert abs(counted[EventKind.UP] - counted[EventKind.LOST]) <= 1


def test_many_at_once() -> None:
    """Each event that goes and each that comes is looked at once, however many codes there are."""

    class Counted(str):
        """A subject that counts how often it is compared."""

        compared = 0
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Counted.compared += 1
            return str.__eq__(self, other)

    many = {
        (f"code-{number}", Counted(number)): problem(f"code-{number}", Counted(number))
        for number in range(3000)
    }
    found = history(LOOK, replace(LOOK, problems=many)).events

    assert len(found) == MOST
    assert [one.subject for one in found[-2:]] == ["code-2998 2998", "code-2999 2999"]
    assert Counted.compared < 10 * len(many)


LOOKS = st.builds(
    Seen,
    st.sampled_from((CONFIG, OTHERS)),
    st.floats(NOW - 9000, NOW + 9000),
    st.dictionaries(
        st.tuples(st.sampled_from("abc"), st.sampled_from(("", "10.0.0.9", "x" * 900))),
        st.just(problem("code", "10.0.0.9", "long " * 200)),
    ),
    st.none() | st.frozensets(st.integers(0, 60).map(lambda n: PEER + n), max_size=60),
    st.none() | st.sampled_from("ab").map(CredentialSet),
    st.sampled_from(("", REFUSED, "x" * 900)),
    st.lists(st.text(max_size=9), max_size=3).map(tuple),
)


@settings(max_examples=examples(25))
@given(st.lists(LOOKS, max_size=30))
def test_whatever_happens(looks: list[Seen]) -> None:
    """Few are kept, short ones, none of the future, and each of them is of some time."""
    made = History()
    for look in looks:
        made = followed(made, look)
        assert len(made.events) <= MOST
        for one in made.events:
            assert one.since <= one.time <= look.time
            assert one.count >= 1
            assert len(one.text) <= LONGEST
            assert len(one.subject) <= LONGEST


def test_seen() -> None:
    """What of a pass counts: the peers of whom the kernel has SAs now."""

    def peers(vm: Vm) -> object:
        found = seen(
            vm.config, Drift(vm.desired, vm.observed), (), vm.assess().peers, refused="", done=()
        )
        return found.peers

    vm = with_sa(healthy_vm()).but(states=states(1, 1))
    assert peers(vm) == {PEER}
    assert peers(vm.but(states=())) == set()
    assert peers(vm.but(states=(), unreadable=(("states", KernelError("no")),))) is None


def test_routine() -> None:
    """The lines of these steps begin so, and no line of a repair does."""
    guard = healthy_vm().desired.guard
    assert guard is not None
    routine = (
        steps.Poke(()),
        steps.RememberPeers(()),
        steps.SaveTime(NOW),
        steps.TerminateChild(1, "x"),
    )
    repairs = (steps.LoadGuard(guard), steps.StartCharon(), steps.KillCharon(CHARON.process, "x"))

    assert all(str(step).startswith(ROUTINE) for step in routine)
    assert not any(str(step).startswith(ROUTINE) for step in repairs)
