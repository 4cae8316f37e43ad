"""Optional mode: the wish, the steps to it and back, and whom enforcing would cut off."""

from ipaddress import ip_address
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.admission import end_optional
from ipsec_agent.core.config import AgentConfig, GuardMode
from ipsec_agent.core.desired_guard import unplaced
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.guard_table import COUNTED_FOR
from ipsec_agent.core.health import Memory
from ipsec_agent.core.model import Action, Desired
from ipsec_agent.core.observed import LoadedConnection, Policy, SecurityAssociation
from ipsec_agent.core.observed_guard import ClearPeer
from ipsec_agent.core.observed_peers import Neighbour, RememberedPeer
from ipsec_agent.core.order import check_order
from ipsec_agent.core.plan import plan
from ipsec_agent.core.problems.kept_faults import Kept, resumed
from ipsec_agent.core.problems.optional import Memory as ClearMemory
from ipsec_agent.core.problems.peer_faults import OLDEST, Hearing
from ipsec_agent.core.problems.problem import LogLine, Severity, healthy
from ipsec_agent.core.status import State, document
from ipsec_agent.core.steps import LoadGuard, ReinstallPolicies, SaveGuard, SetLevel, Step
from ipsec_agent.core.swanctl import credentials_mark, fingerprint
from ipsec_agent.errors import KernelError, StartError
from ipsec_agent.reporter import Reporter
from ipsec_agent.verbs.status_text import text
from tests.configs import config
from tests.core.test_status import snapshot
from tests.fakes import installed
from tests.passes import quiet_pass
from tests.vm import CHARON, NOW, OTHER, OWN, PEER, Vm, healthy_vm

ON = config(optional=True)


def loosened(policy: Policy) -> Policy:
    """A trap with `level use`."""
    return replace(policy, esp=False, optional=True) if policy.esp else policy


def loose_vm(settings: Any = ON) -> Vm:
    """A VM that is as an optional config wants it."""
    vm = healthy_vm(settings)
    return vm.but(policies=tuple(map(loosened, vm.observed.policies)))


def with_clear(vm: Vm, *, idle: int = 3, out: int = 0) -> Vm:
    """The VM with clear packets that came from PEER, and, with `out`, went there."""
    came = (ClearPeer(PEER, 7, 700, idle),)
    went = (ClearPeer(PEER, out, 70, idle + 1),) if out else ()
    return vm.table(clear_in=came, clear_out=went)


def with_states(vm: Vm, added: float) -> Vm:
    """The VM with SAs with PEER that are so old."""
    sa = SecurityAssociation(PEER, OWN, 8, 1, added=int(added))
    return vm.but(states=(sa, replace(sa, source=OWN, destination=PEER, spi=9)))


def told(vm: Vm) -> Vm:
    """The VM whose charon has loaded all that it should have."""
    wish = vm.desired
    assert wish.credentials is not None
    charon = replace(
        CHARON,
        connections=tuple(
            LoadedConnection(
                one.name, fingerprint(one), tuple(child.name for child in one.children)
            )
            for one in wish.connections
        ),
        authorities=tuple(one.name for one in wish.credentials.authorities),
        keys=(wish.credentials.key_id,),
        credentials=credentials_mark(wish.credentials),
    )
    saved = wish.guard.mark if wish.guard else ""
    return vm.but(charon=charon, saved_guard=saved)


def steps(wish: Desired, vm: Vm) -> tuple[Step, ...]:
    """What is to be done, in an order that is right."""
    found = plan(Drift(wish, vm.observed))
    assert check_order(found, wish) == ()
    return found


def test_nothing_to_do() -> None:
    """A VM in optional mode is as it should be, with traps that only use ESP."""
    vm = told(loose_vm())

    assert steps(vm.desired, vm) == ()
    assert Drift(vm.desired, vm.observed).missing == ()


def test_there_and_back() -> None:
    """Only guard and levels change; enforcing begins with the guard."""
    off, on = told(healthy_vm()), told(loose_vm())
    assert on.desired.guard is not None
    assert off.desired.guard is not None

    there = steps(on.desired, off)
    traps = [policy for policy in off.observed.policies if policy.esp]
    assert [type(step) for step in there] == [LoadGuard, SaveGuard, SetLevel, SetLevel]
    assert [step.policy.selector for step in there if isinstance(step, SetLevel)] == [
        policy.selector for policy in traps
    ]
    assert all(step.optional for step in there if isinstance(step, SetLevel))

    back = steps(off.desired, on)
    assert [type(step) for step in back] == [LoadGuard, SaveGuard, SetLevel, SetLevel]
    assert not any(step.optional for step in back if isinstance(step, SetLevel))
    # Until it is done this VM does not enforce.
    assert len(Drift(off.desired, on.observed).missing) == len(traps)


def test_the_reqid_is_the_traps() -> None:
    """Another program has made the trap optional, and lost its number."""
    vm = told(healthy_vm())
    other = tuple(replace(loosened(policy), reqid=0) for policy in vm.observed.policies)
    reqids = {policy.reqid for policy in vm.desired.policies if policy.action is Action.ENCRYPT}

    found = steps(vm.desired, vm.but(policies=other))

    assert {step.policy.reqid for step in found if isinstance(step, SetLevel)} == reqids
    assert 0 not in reqids
    assert not any(isinstance(step, ReinstallPolicies) for step in found)


@pytest.mark.parametrize(
    "change",
    [{"blocks": True}, {"priority": 5}, {"tunnel": PEER}],
    ids=str,
)
def test_what_is_no_trap_is_installed_again(change: dict[str, Any]) -> None:
    """A level is given to charon's own trap only, whatever else has its selector."""
    vm = told(healthy_vm())
    others = tuple(
        replace(loosened(policy), **change) if policy.esp else policy
        for policy in vm.observed.policies
    )

    found = steps(vm.desired, vm.but(policies=others))

    assert [type(step) for step in found] == [ReinstallPolicies]


def test_what_charon_installs_now_waits() -> None:
    """A trap that is about to be replaced is looked at again first."""
    vm = told(healthy_vm(ON))
    assert vm.observed.charon is not None
    forgotten = vm.but(charon=replace(vm.observed.charon, connections=()))

    assert not any(isinstance(step, SetLevel) for step in steps(vm.desired, forgotten))
    assert any(isinstance(step, SetLevel) for step in steps(vm.desired, vm))
    for charon in (None, replace(vm.observed.charon, responsive=False)):
        assert any(isinstance(one, SetLevel) for one in steps(vm.desired, vm.but(charon=charon)))


def test_an_orphan_of_optional_mode() -> None:
    """A trap that only uses ESP is known as a dead charon's, too."""
    vm = told(loose_vm(config(("10.0.0.0/16", "10.1.0.0/16"), optional=True)))
    narrower = told(healthy_vm()).desired

    orphans = Drift(narrower, vm.observed).orphans

    assert {str(policy.selector.destination) for policy in orphans} == {"10.1.0.0/16", f"{OWN}/32"}


def test_never_while_enforced() -> None:
    """Whatever relaxes is refused where IPsec is not optional, wherever it is in a plan."""
    on, off = loose_vm().desired, healthy_vm().desired
    assert on.guard is not None
    trap = next(installed(one) for one in off.policies if one.action is Action.ENCRYPT)
    relaxing = (
        LoadGuard(on.guard),
        SaveGuard(on.guard),
        SetLevel(trap, optional=True),
    )
    for step in relaxing:
        mistaken = replace(off, guard=on.guard)
        assert [one.step for one in check_order((step,), mistaken)] == [step]
        assert check_order((step,), on) == ()
    assert check_order((SetLevel(trap, optional=False),), off) == ()


def test_the_guard_counts() -> None:
    """It drops nothing that is clear, and still what a lying peer makes, before the VM is placed,
    too."""
    on, off = loose_vm().desired.guard, healthy_vm().desired.guard
    assert on is not None
    assert off is not None

    assert (on.enforces, off.enforces) == (False, True)
    assert on.mark != off.mark
    drops = [line for line in on.text.splitlines() if " drop" in line]
    assert drops
    assert all("not in transport mode" in line for line in drops)
    assert "drop" not in on.flow_rules
    early = unplaced(ON, lowered=False)
    assert (early.optional, early.guard) == (True, replace(on, exempt=(), overlay_ports=()))


def test_never_healthy() -> None:
    """It is a warning for as long as it is on, and what passes is no other one."""
    vm = with_clear(loose_vm(), out=2).table(dropped_in=7, dropped_out=2)
    found = vm.problems()

    assert found.keys() == {"optional-on"}
    problem = found["optional-on"]
    assert problem.severity is Severity.WARNING
    assert not healthy((problem,))
    assert f"would cut off {PEER} (clear since 2027-01-15 07:59:57 UTC, never" in problem.message
    assert "none of the peers heard from" in loose_vm().problems()["optional-on"].message


def test_a_peer_without_ipsec_is_no_fault() -> None:
    """It answers no IKE, which is no warning here; a peer that refuses is."""
    lines = tuple(
        LogLine(code, "it says so", str(PEER), "look", NOW - 60)
        for code in ("peer-silent", "peer-refuses-us")
    )
    memory = loose_vm().but(time=NOW - 50).assess(lines=lines[:1]).memory

    silent = loose_vm().assess(memory, lines=lines[:1]).problems
    assert {one.code for one in silent} == {"optional-on"}
    refused = loose_vm().assess(lines=lines[1:]).problems
    assert {one.code for one in refused} == {"optional-on", "peer-refuses-us"}


def cut_off(vm: Vm, memory: Memory | None = None, **more: Any) -> dict[str, Any]:
    """Whom enforcing would cut off, by address."""
    return {str(one.address): one for one in vm.assess(memory, **more).memory.clear.cut_off}


def test_whom_it_would_cut_off() -> None:
    """Those who speak clear and have no SA since; not nobody's address, nor our own."""
    vm = loose_vm()
    one = cut_off(with_clear(vm, out=5))[str(PEER)]
    assert (one.way, one.packets, one.since, one.last) == ("both", 12, NOW - 3, NOW - 3)
    assert cut_off(with_clear(vm, idle=COUNTED_FOR)) == {}
    assert cut_off(with_states(with_clear(vm, idle=20), NOW - 10)) == {}
    # What it sent while its SA was made.
    assert cut_off(with_states(with_clear(vm, idle=7), NOW - 10)) == {}
    again = cut_off(with_states(with_clear(vm, idle=2), NOW - 10))[str(PEER)]
    assert again.encrypted == NOW
    nobodys = tuple(ClearPeer(ip_address(text), 1, 1, 0) for text in ("10.0.0.255", str(OWN)))
    assert cut_off(vm.table(clear_out=nobodys)) == {}
    assert cut_off(with_clear(healthy_vm())) == {}


def test_since_when() -> None:
    """From the first packet that was seen on, and a rekeyed SA is no new one."""
    vm = loose_vm()
    memory = with_clear(vm.but(time=NOW - 100)).assess().memory
    assert cut_off(with_clear(vm), memory)[str(PEER)].since == NOW - 103

    memory = with_states(vm.but(time=NOW - 500), NOW - 600).assess().memory
    # It spoke clear beside its SA, which would be hidden by the age of the rekeyed one.
    rekeyed = with_states(with_clear(vm, idle=20), NOW - 10)
    assert str(PEER) in cut_off(rekeyed, memory)
    unread = with_clear(vm).but(states=(), unreadable=(("states", KernelError("")),))
    assert unread.assess(memory).memory.clear == memory.clear


def test_it_had_an_sa() -> None:
    """That is known for as long as its clear packets are, whoever else forgets the peer."""
    seen = with_states(with_clear(loose_vm(), idle=1), NOW - 60)
    memory = seen.assess().memory
    assert cut_off(seen)[str(PEER)].encrypted == NOW

    later = with_clear(loose_vm().but(time=NOW + 300))
    assert later.observed.remembered == ()
    assert cut_off(later, memory)[str(PEER)].encrypted == NOW
    set_back = with_clear(loose_vm().but(time=NOW - 300))
    assert cut_off(set_back, memory)[str(PEER)].encrypted == NOW - 300


def test_nobody_may_be_there() -> None:
    """What is only sent to, and never answered anything, is not cut off; it is named apart."""
    vm = loose_vm().table(clear_out=(ClearPeer(PEER, 4, 70, 1), ClearPeer(OTHER, 4, 70, 1)))

    def heard_from(seen: Vm, memory: Memory | None = None, **more: Any) -> set[str]:
        after = seen.assess(memory, **more).memory
        silent = {str(one.address) for one in after.clear.never_heard}
        assert silent == {str(PEER), str(OTHER)} - cut_off(seen, memory, **more).keys()
        return {str(PEER), str(OTHER)} - silent

    assert heard_from(vm) == set()
    assert heard_from(vm.but(neighbours=(Neighbour(PEER, NOW - 9), Neighbour(OTHER)))) == {
        str(PEER)
    }
    assert heard_from(vm, heard={str(OTHER): Hearing(answered=NOW - 9)}) == {str(OTHER)}
    assert heard_from(vm, heard={str(OTHER): Hearing(tried=NOW - 9)}) == set()
    assert heard_from(vm.but(remembered=(RememberedPeer(PEER, NOW - 9),))) == {str(PEER)}
    # It has answered, and is only sent to since.
    memory = with_clear(vm.but(time=NOW - 100)).assess().memory
    assert heard_from(vm, memory) == {str(PEER)}

    shown = snapshot(vm)
    assert end_optional(config(), shown, asks=True) == (
        "enforcing now would cut off none of the peers heard from; never heard from, though packets"
        f" go there: {PEER}, {OTHER}",
    )
    lines = text(document(shown))
    assert "enforcing now would cut off: none seen\n" in lines
    assert f"  never heard from, though packets go there: {PEER}, {OTHER}\n" in lines


def resumed_memory(vm: Vm, *, after: float) -> Memory:
    """What an agent that starts so many seconds later takes up."""
    kept = Kept(talks=vm.assess().memory.clear.talks)
    talks = resumed(kept, vm.observed.time, vm.observed.time + after).talks
    return Memory(clear=ClearMemory(talks))


def test_since_when_over_restarts() -> None:
    """Also where the VM has booted, and the guard has counted nothing yet; not for ever."""
    before = with_clear(loose_vm().but(time=NOW - 9 * COUNTED_FOR))
    memory = resumed_memory(before, after=9 * COUNTED_FOR)
    since = NOW - 9 * COUNTED_FOR - 3

    assert cut_off(with_clear(loose_vm()), memory)[str(PEER)].since == since
    booted = cut_off(loose_vm(), memory)[str(PEER)]
    assert (booted.since, booted.last, booted.packets) == (since, since, 7)
    first = loose_vm().assess(memory).memory
    assert cut_off(loose_vm().but(time=NOW + COUNTED_FOR - 1), first).keys() == {str(PEER)}
    assert cut_off(loose_vm().but(time=NOW + COUNTED_FOR), first) == {}
    # It has changed over meanwhile, or is meant to speak clear.
    assert cut_off(with_states(loose_vm(), NOW - 10), memory) == {}
    exempt = loose_vm(config(no_ipsec=(f"{PEER}/32",), optional=True))
    assert cut_off(exempt, memory) == {}
    assert cut_off(healthy_vm(), memory) == {}
    # A clock that was set back, and an agent that was away for long.
    early = cut_off(loose_vm().but(time=NOW - 20 * COUNTED_FOR), memory)[str(PEER)]
    assert early.since == early.last == NOW - 20 * COUNTED_FOR
    assert early.until == early.last + COUNTED_FOR
    assert cut_off(loose_vm(), resumed_memory(before, after=OLDEST)) == {}


def test_another_agent_takes_it_up() -> None:
    """What its reporter is given lasts over its first passes."""
    first = Reporter()
    kept = first.report(quiet_pass(with_clear(loose_vm().but(time=NOW - 100)))).kept

    second = Reporter()
    second.resume(resumed(kept, NOW - 90, NOW - 50))
    for later in (40, 0):
        (one,) = second.report(quiet_pass(loose_vm().but(time=NOW - later))).kept.talks
        assert (one.address, one.since) == (PEER, NOW - 103)


def test_who_was_not_seen() -> None:
    """A peer that once had an SA and says nothing now; one that has an SA, or speaks, is known."""
    known = (RememberedPeer(PEER, NOW - 9000), RememberedPeer(OTHER, NOW - 9000))
    vm = loose_vm().but(remembered=known)

    assert vm.assess().memory.clear.unseen == (PEER, OTHER)
    assert with_clear(vm).assess().memory.clear.unseen == (OTHER,)
    assert cut_off(with_clear(vm))[str(PEER)].encrypted == NOW - 9000
    assert with_states(vm, NOW - 10).assess().memory.clear.unseen == (OTHER,)


def test_status() -> None:
    """The document and the text say it; while IPsec is enforced they say nothing."""
    vm = with_clear(loose_vm()).but(remembered=(RememberedPeer(OTHER, NOW),))
    shown = document(snapshot(vm))

    assert shown["optional"]["counted"]
    assert shown["optional"]["unseen"] == [str(OTHER)]
    assert not shown["guard"]["drops"]
    assert not shown["healthy"]
    lines = text(shown)
    assert "guard      up, counts only: 0 in, 0 out\n" in lines
    assert "optional   on; enforcing now would cut off:\n" in lines
    assert f"  {PEER}                 clear in for 3 s, last 3 s ago, never had an SA\n" in lines
    assert f"  not seen since, so not known: {OTHER}\n" in lines
    assert "would cut off: none seen\n" in text(document(snapshot(loose_vm())))
    enforced = document(snapshot(healthy_vm()))
    assert enforced["optional"] is None
    assert "optional" not in text(enforced)


def test_the_table_in_force_decides_what_is_said() -> None:
    """One of the mode before is in force until the new one is loaded, or none, or somebody's."""
    on, off = loose_vm().desired.guard, healthy_vm().desired.guard
    assert on is not None
    assert off is not None
    enforced = with_clear(healthy_vm())
    assert document(snapshot(enforced))["guard"]["drops"]
    assert "clear-received" in enforced.problems()
    late = enforced.table(mark=on.mark)
    for vm in (late, enforced.table(mark=""), with_clear(loose_vm()).table(mark=off.mark)):
        shown = document(snapshot(vm))
        assert not shown["guard"]["drops"]
        assert "clear-received" not in vm.problems()
        assert "guard      ALTERED: the table is not as it should be, counted 0 in, 0" in (
            text(shown)
        )
    assert not document(snapshot(enforced.but(guard=None)))["guard"]["drops"]
    # Before the VM is placed the guard is wanted, and is known, too.
    early = replace(enforced, desired=unplaced(config(), lowered=False))
    assert document(snapshot(early))["guard"]["drops"]


def test_what_did_not_fit_was_not_dropped_either() -> None:
    """Where the table of optional mode is still in force, nothing is said to be dropped."""
    on = loose_vm().desired.guard
    assert on is not None
    for mark, told in ((None, True), (on.mark, False)):
        vm = healthy_vm() if mark is None else healthy_vm().table(mark=mark)
        first = vm.table(reading=1).assess()
        second = vm.table(reading=2, disguised_in=4, dropped_in=4).assess(first.memory)
        assert ("clear-disguised" in {one.code for one in second.problems}) is told


def test_without_the_guard_nobody_counts() -> None:
    """Then nothing is said of whom enforcing would cut off."""
    vm = loose_vm(config(optional=True, agent=AgentConfig(guard=GuardMode.NONE)))

    assert "not known without the guard" in vm.problems()["optional-on"].message
    assert "nothing is counted" in text(document(snapshot(vm)))


def test_to_end_it() -> None:
    """Whoever can be asked is, where peers would be cut off or nobody knows; others are told."""
    cutting, safe = snapshot(with_clear(loose_vm())), snapshot(loose_vm())
    unknown = replace(safe, guard_lowered=True)

    for found in (cutting, unknown):
        with pytest.raises(StartError) as refused:
            end_optional(config(), found, asks=True)
        assert "reload --force" in refused.value.hint
        assert len(end_optional(config(), found, asks=False)) == 1
    with pytest.raises(StartError, match=str(PEER)):
        end_optional(config(), cutting, asks=True)
    assert "none of the peers" in end_optional(config(), safe, asks=True)[0]
    # What the same edit exempts is not cut off.
    exempting = config(no_ipsec=(f"{PEER}/32",))
    assert "none of the peers" in end_optional(exempting, cutting, asks=True)[0]
    assert end_optional(ON, cutting, asks=True) == ()
    assert end_optional(config(), snapshot(healthy_vm()), asks=True) == ()
    assert end_optional(config(), None, asks=True) == ()
    assert cutting.state is State.DEGRADED
