"""SAs are moved to the certificate in force: which, when, and what ends."""

from ipaddress import ip_address

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Attempt, CredentialSet
from ipsec_agent.core.observed import IkeSa
from ipsec_agent.core.order import check_order
from ipsec_agent.core.pacing import BEGUN_AT_ONCE, GRACE, SPREAD
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.plan import plan
from ipsec_agent.core.problems.rotation import rotation_problems
from ipsec_agent.core.rotation import (
    BOUND,
    LEFT_FOR,
    RETRY_FIRST,
    RETRY_MOST,
    Standing,
    behind,
    endings,
    in_force,
    moves,
    moves_wait,
    pause,
)
from ipsec_agent.core.status_rotation import of_peers, summary
from ipsec_agent.core.steps import Renew, TerminateChild, TerminateSa
from tests.configs import config
from tests.core.test_orphans import OWN, PEER, child_sa, ike_sa
from tests.core.test_plan import loaded_world
from tests.examples import examples

WISH = desired(config(), Placement(OWN, (OWN,)))
SWITCHED = 5000.0
FOUND = in_force(WISH)
assert FOUND is not None
NEW = replace(FOUND, since=SWITCHED)
OLD = CredentialSet("0" * 12, "another", "CN=vm1", 1_798_934_400.0, NEW.authorities)
REMOVED = CredentialSet("1" * 12, NEW.certificate, "CN=vm", 9e9, ("gone", *NEW.authorities))
FEWER = CredentialSet("2" * 12, NEW.certificate, "CN=vm", 9e9, ())
SETS = (OLD, FEWER, REMOVED, NEW)


def made(sa: IkeSa, mark: str) -> IkeSa:
    """An IKE_SA of a set."""
    return replace(sa, made_with=mark)


def old(number: int = 1, *, age: int = 500) -> IkeSa:
    """An IKE_SA of the old certificate that carries traffic."""
    return made(ike_sa(number, child_sa(number, 100 * number, age=age)), OLD.mark)


def drift(*sas: IkeSa, later: float = 10.0, **more: object) -> Drift:
    """So many seconds after the switch."""
    settled = {"sets": SETS, **more}
    return Drift(WISH, replace(loaded_world(WISH, sas=sas, **settled), time=SWITCHED + later))


def test_how_an_sa_is() -> None:
    """A CA that was added changes nothing; one that was removed does, whatever the certificate."""
    by_mark = {OLD: Standing.OLD, REMOVED: Standing.REMOVED}
    for one, wanted in by_mark.items():
        (found,) = behind(drift(made(old(), one.mark)))
        assert (found.standing, found.made_with) == (wanted, one)
    (found,) = behind(drift(made(old(), "")))
    assert (found.standing, found.made_with) == (Standing.UNKNOWN, None)
    for one in (NEW, FEWER):
        assert behind(drift(made(old(), one.mark))) == ()


def test_a_peer_is_moved_beside_its_old_sa() -> None:
    """With the certificate in force, to that peer alone; nothing ends before."""
    seen = drift(old())
    steps = plan(seen)
    assert [type(step) for step in steps if not isinstance(step, Renew)] == [
        type(step) for step in plan(drift())
    ] or all(not isinstance(step, TerminateSa) for step in steps)
    (step,) = moves(seen)
    assert step in steps
    assert str(step.connection.remote) == f"{PEER}/32"
    assert step.connection.name == f"ipsec-renew-{NEW.mark}-{PEER}"
    assert step.connection.settings is not None
    assert step.connection.settings.certificate == config().certificate


def test_peers_of_both_versions() -> None:
    """A VM may speak IPv4 with some and IPv6 with others; those of a removed CA are first."""
    six = replace(old(2), local=ip_address("fd00::5"), remote=ip_address("fd00::9"))
    removed = made(replace(six, unique_id=3, remote=ip_address("fd00::8")), REMOVED.mark)
    for sas in ((old(), six, removed), (removed, six, old())):
        seen = drift(*sas)
        assert [str(one.pair[1]) for one in behind(seen)] == ["fd00::8", str(PEER), "fd00::9"]
        assert rotation_problems(seen)[0].message.startswith("3 of 3 peers are still on CN=")
        assert any(isinstance(step, Renew) for step in plan(seen))


def test_on_three_certificates() -> None:
    """Two are named, and that there are others."""
    older = [replace(OLD, mark=one * 12, subject=f"CN={one}") for one in "abc"]
    sas = [replace(made(old(n), one.mark), remote=PEER + n) for n, one in enumerate(older, 1)]

    (found,) = rotation_problems(drift(*sas, sets=(*older, NEW)))
    assert "still on CN=a (ends 2027-01-03), CN=b (ends 2027-01-03) or others: " in found.message
    (found,) = rotation_problems(drift(*sas[:2], sets=(*older, NEW)))
    assert "still on CN=a (ends 2027-01-03) or CN=b (ends 2027-01-03): " in found.message


def test_what_is_not_moved() -> None:
    """One that is moved or under way, and all while something is to be loaded."""
    new = made(ike_sa(2, child_sa(2, 200)), NEW.mark)
    assert moves(drift(old(), new)) == ()
    connecting = replace(ike_sa(2), state="CONNECTING")
    assert moves(drift(old(), connecting)) == ()
    # The peer's IKE_SA, whose CHILD_SA is to come; one that never came is not waited for.
    for age, count in ((RETRY_FIRST - 1, 0), (RETRY_FIRST, 1)):
        childless = replace(made(ike_sa(2), NEW.mark), age=int(age))
        assert len(moves(drift(old(), childless))) == count
    name = moves(drift(old()))[0].connection.name
    assert moves(drift(old(), renewing=frozenset({name}))) == ()
    unloaded = drift(old())
    assert unloaded.observed.charon is not None
    bare = replace(unloaded.observed, charon=replace(unloaded.observed.charon, connections=()))
    assert not any(isinstance(step, Renew) for step in plan(Drift(WISH, bare)))
    # Nothing is judged by a set that has not been loaded yet.
    assert behind(drift(old(), sets=(OLD,))) == ()


def test_what_nobody_has_noted() -> None:
    """After an agent has taken over a charon it is left alone, until something changes."""
    unknown = made(old(), "")
    assert moves(drift(unknown, sets=(CredentialSet(""), NEW))) == ()
    assert rotation_problems(drift(unknown, sets=(CredentialSet(""), NEW))) == ()
    (step,) = moves(drift(unknown, sets=(CredentialSet(""), OLD, NEW)))
    asked = {step.connection.name: Attempt()}
    assert moves(drift(unknown, sets=(CredentialSet(""), NEW), attempts=asked)) == (step,)


def test_who_waits_for_whom() -> None:
    """The end that is not to begin waits a little; the other one does not."""
    assert moves(drift(old(), later=0.5)) == ()
    assert len(moves(drift(old(), later=GRACE + SPREAD + 1))) == 1
    assert len(moves(drift(old(), later=-5.0))) == 1
    assert moves_wait(drift(old(), later=0.5))
    assert not moves_wait(drift(made(old(), NEW.mark)))


def test_a_peer_that_knows_no_handover() -> None:
    """It refuses the child and keeps the IKE_SA: the ordinary child comes next, without a pause."""
    (step,) = moves(drift(old()))
    asked = step.connection
    assert [child.level for child in asked.children] == [0, 1]
    bare = replace(made(ike_sa(2), NEW.mark), name=asked.name)

    def then(count: int, *renewing: str) -> list[list[int]]:
        attempts = {asked.name: Attempt(count, SWITCHED + 9)}
        seen = drift(old(), bare, attempts=attempts, renewing=frozenset(renewing))
        assert moves_wait(seen) == bool(moves(seen))
        return [[child.level for child in step.connection.children] for step in moves(seen)]

    assert then(1) == [[0]]
    assert then(2) == []
    assert then(1, asked.name) == []
    # One that the peer began while this VM asked, too: its child has ended since then.
    (step,) = moves(drift(old(), replace(bare, initiator=False, age=60)))
    assert [child.level for child in step.connection.children] == [0, 1]
    # With a child in it, it is a handover.
    assert moves(drift(old(), replace(bare, children=(child_sa(2, 200),)))) == ()


def fleet(count: int) -> tuple[IkeSa, ...]:
    """An old SA with each of so many peers."""
    peers = [ip_address("10.0.1.0") + number for number in range(count)]
    return tuple(
        made(ike_sa(n, child_sa(n, 2 * n, peer=peer), peer=peer), OLD.mark)
        for n, peer in enumerate(peers, 1)
    )


def test_a_fleet_is_moved_in_its_time() -> None:
    """Of 640 peers 16 at once, spread over 40 s; none is ready at the start, all are at the end."""
    sas = fleet(640)
    assert len(moves(drift(*sas, later=1.0))) <= BEGUN_AT_ONCE
    assert len(moves(drift(*sas, later=60.0))) == BEGUN_AT_ONCE
    names = frozenset(step.connection.name for step in moves(drift(*sas, later=60.0)))
    assert moves(drift(*sas, later=60.0, renewing=names)) == ()


def test_one_that_refuses_is_asked_again_later() -> None:
    """After 30 s, then twice as long each time, up to 10 minutes; at once where one is asked to."""
    (step,) = moves(drift(old()))
    name = step.connection.name

    def again(count: int, since: float) -> tuple[Renew, ...]:
        attempts = {name: Attempt(count, SWITCHED + 100 - since)}
        return moves(drift(old(), later=100, attempts=attempts))

    assert again(1, RETRY_FIRST - 1) == ()
    assert again(1, RETRY_FIRST + 1) == (step,)
    assert again(2, RETRY_FIRST + 1) == ()
    assert pause(99) == RETRY_MOST
    # Where the clock was set back, nobody waits until it says so late again.
    assert again(9, -86400) == (step,)
    assert moves(drift(old(), later=0.0, attempts={name: Attempt()})) == (step,)


def test_what_a_removed_ca_had_made_ends() -> None:
    """After the bound, even where nothing replaces it; the countdown says when."""
    gone = made(old(), REMOVED.mark)
    (before,) = behind(drift(gone, later=BOUND - 60))
    assert before.ends_in == 60
    assert endings(drift(gone, later=BOUND - 1)) == ()
    (step,) = endings(drift(gone, later=BOUND))
    assert step.unique_id == 1
    assert step in plan(drift(gone, later=BOUND))
    # Also one without traffic, on which the peer could ask for a CHILD_SA.
    assert len(endings(drift(made(ike_sa(3), REMOVED.mark), later=BOUND))) == 1
    # One of another certificate of ours stays as long as it lasts.
    assert endings(drift(old(), later=BOUND * 9)) == ()
    assert behind(drift(old()))[0].ends_in is None


def test_another_change_gives_no_more_time() -> None:
    """The bound counts from when the CA was removed, also where nobody knows what an SA is of."""
    since = SWITCHED - 100
    for between in (replace(OLD, since=since), replace(FEWER, since=since)):
        for mark in (REMOVED.mark, ""):
            seen = drift(made(old(), mark), sets=(REMOVED, between, NEW))
            (found,) = behind(seen)
            assert found.ends_in == BOUND - 110
    back = (replace(FEWER, since=0.0), REMOVED, NEW)
    assert behind(drift(made(old(), REMOVED.mark), sets=back))[0].ends_in == BOUND - 10


def test_what_the_other_vm_does_not_end() -> None:
    """After a minute beside a new SA the old one ends, whoever has the lower address."""
    for age, count in ((LEFT_FOR - 1, 0), (LEFT_FOR, 1)):
        new = made(ike_sa(2, child_sa(2, 200, age=age)), NEW.mark)
        found = endings(drift(old(), new))
        assert [step.unique_id for step in found] == [1] * count


standings = st.lists(st.sampled_from([OLD.mark, REMOVED.mark, NEW.mark, ""]), max_size=4)


@settings(max_examples=examples(200), deadline=None)
@given(
    standings,
    st.lists(st.integers(0, 900), min_size=4, max_size=4),
    st.lists(st.sampled_from(["x", "x-after-1", "x-later-1", "x-later-2"]), min_size=4, max_size=4),
    st.floats(0, 3 * BOUND),
)
def test_safe_wherever_it_is_cut(
    marks: list[str], ages: list[int], names: list[str], later: float
) -> None:
    """Before the bound a peer that has an SA keeps one, however far a plan gets."""
    sas = tuple(
        made(ike_sa(n, replace(child_sa(n, 100 * n, age=age), name=name)), mark)
        for n, (mark, age, name) in enumerate(zip(marks, ages, names, strict=False), 1)
    )
    seen = drift(*sas, later=later)
    steps = plan(seen)
    assert check_order(steps, WISH) == ()
    ended: set[int] = set()
    for step in steps:
        if isinstance(step, TerminateSa | TerminateChild):
            ended.add(step.unique_id)
    # What is in force is never what ends for its age, and of others one is left.
    left = [sa for sa in sas if sa.unique_id not in ended]
    if sas and later < BOUND:
        assert left
    assert not {sa.unique_id for sa in sas if sa.made_with == NEW.mark} & {
        step.unique_id for step in endings(seen)
    }


def test_the_status() -> None:
    """It says how many peers are on what, and of each peer who it is and how its SA was made."""
    gone = replace(made(old(), REMOVED.mark), remote_id="CN=peer")
    peers = of_peers(drift(gone))
    assert peers[PEER] == {
        "identity": "CN=peer",
        "certificate": "CN=vm",
        "certificate_ends": 9e9,
        "certificate_state": "removed-ca",
        "ends_in": BOUND - 10,
    }
    assert summary(drift(*fleet(3), made(old(9), NEW.mark))) == {
        "peers": 4,
        "behind": 3,
        "on": [{"certificate": "CN=vm1", "certificate_ends": OLD.expires, "peers": 3}],
    }


def test_the_problems() -> None:
    """An info while it goes on, a warning after ten minutes; none once all are moved."""
    (found,) = rotation_problems(drift(*fleet(4), made(old(9), NEW.mark)))
    assert found.code == "certificate-old"
    assert found.severity == "info"
    assert "4 of 5 peers are still on CN=vm1 (ends 2027-01-03)" in found.message
    (slow,) = rotation_problems(drift(*fleet(4), later=BOUND))
    assert slow.severity == "warning"
    _, removed = rotation_problems(drift(made(old(), REMOVED.mark)))
    assert removed.code == "ca-removed"
    assert "ends them in 10 min" in removed.message
    assert rotation_problems(drift(made(old(), NEW.mark))) == ()
