"""The check of a plan's order: each rule broken once, and every order of one plan."""

from ipaddress import ip_address, ip_network
from itertools import chain, combinations, product

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard
from ipsec_agent.core.model import Action, Direction, LinkId, PolicySelector
from ipsec_agent.core.observed import Policy, SecurityAssociation
from ipsec_agent.core.order import TOGETHER_MOST, check_order, kind_of, opens, together
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.steps import (
    DeletePolicy,
    DeleteState,
    ExemptLinks,
    GuardFlows,
    KillCharon,
    LoadAuthority,
    LoadConnection,
    LoadGuard,
    LoadKey,
    Poke,
    ReinstallPolicies,
    RemoveGuard,
    Renew,
    SaveGuard,
    SetLevel,
    SetMtu,
    StartCharon,
    Step,
    TerminateChild,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
)
from tests.configs import config
from tests.fakes import PROCESS

OWN, PEER = ip_address("10.0.0.5"), ip_address("10.0.0.9")
HERE = Placement(OWN, (OWN,))
CONFIG = config(("10.0.0.0/16",), ("10.0.9.0/24",))
WISH = replace(desired(CONFIG, HERE), guard=desired_guard(CONFIG, HERE))
assert WISH.guard is not None
assert WISH.credentials is not None
CONNECTIONS = {connection.action: connection for connection in WISH.connections}
SELECTOR = PolicySelector(Direction.OUT, ip_network(OWN), ip_network(PEER))

GUARD = LoadGuard(WISH.guard)
LINKS, FLOWS, SAVE = ExemptLinks(()), GuardFlows("text"), SaveGuard(WISH.guard)
MTU = SetMtu(2, 1400)
LIE = TerminateSa(8, "a lie", at_once=True)
CA, KEY = LoadAuthority(WISH.credentials.authorities[0]), LoadKey(WISH.credentials)
SHUNT, TRAP = (LoadConnection(CONNECTIONS[one], "") for one in (Action.PASS, Action.ENCRYPT))
REINSTALL = ReinstallPolicies("c", "c-10.0.0.5", Action.ENCRYPT)
TIGHTEN = SetLevel(Policy(SELECTOR, 1, esp=False, blocks=False, optional=True), optional=False)
RENEW = Renew(CONNECTIONS[Action.ENCRYPT])
ORPHAN = DeletePolicy(Policy(SELECTOR, 1, esp=True, blocks=False))
ORPHAN_SA = DeleteState(SecurityAssociation(OWN, PEER, 77, 1))
UNSHUNT, UNTRAP = UnloadConnection("no-ipsec-10.1.0.0/24"), UnloadConnection("ipsec-10.1.0.0/16")
END, LOST = TerminateSa(7, "no connection"), TerminateChild(9, "lost")
POKE = Poke((PEER,))
NO_KEY, NO_CA = UnloadKey("old"), UnloadAuthority("old")
ONLY_KEY = LoadKey(WISH.credentials, only=True)
START, KILL = StartCharon(), KillCharon(PROCESS, "it hangs")

PLAN: tuple[Step, ...] = (
    *(GUARD, LINKS, SAVE, FLOWS, MTU, LIE, CA, KEY, SHUNT, TIGHTEN, TRAP, REINSTALL, RENEW),
    *(ORPHAN, ORPHAN_SA, UNSHUNT, UNTRAP, END, LOST, POKE, NO_KEY, ONLY_KEY, NO_CA),
)
STAGES: tuple[tuple[Step, ...], ...] = (
    (GUARD,), (LINKS, FLOWS), (CA, KEY), (SHUNT,), (TRAP,), (REINSTALL,),
    (UNSHUNT,), (UNTRAP,), (END, LOST),
)  # fmt: skip
"""Each waits for all before it."""

UNLOADING = 6
LOADED = tuple(chain(*STAGES[:UNLOADING]))
BESIDE: tuple[tuple[tuple[Step, ...], tuple[Step, ...]], ...] = (
    ((SAVE,), (GUARD,)),
    ((MTU, LIE), (GUARD, LINKS, FLOWS)),
    # Whatever becomes of traps and credentials that are loaded.
    ((TIGHTEN,), (GUARD, LINKS, FLOWS, SHUNT)),
    ((TRAP, REINSTALL, UNSHUNT, UNTRAP, END, LOST), (TIGHTEN,)),
    ((RENEW, POKE), (*LOADED, TIGHTEN)),
    ((ORPHAN, ORPHAN_SA), (*LOADED, TIGHTEN, RENEW)),
    (
        (NO_KEY, ONLY_KEY, NO_CA),
        (*chain(*STAGES), TIGHTEN, SAVE, RENEW, POKE, ORPHAN, ORPHAN_SA, START, KILL),
    ),
    ((START, KILL), PLAN),
)
"""Steps, and what they wait for."""

RULES: tuple[tuple[Step, Step], ...] = (
    *((one, two) for first, then in combinations(STAGES, 2) for one, two in product(first, then)),
    *((first, step) for steps, before in BESIDE for first, step in product(before, steps)),
)
"""What must be done, and what must wait for it."""


def test_the_right_order() -> None:
    """One step of each kind; and alone each may be done, too."""
    assert check_order(PLAN, WISH) == ()
    for step in (*PLAN, START, KILL):
        assert check_order((step,), WISH) == ()
    unguarded = replace(WISH, guard=None)
    last = (StartCharon(), GuardFlows(""), RemoveGuard(), SaveGuard(None))
    assert check_order(last[1:], unguarded) == ()


@pytest.mark.parametrize(("first", "then"), RULES, ids=str)
def test_each_rule(first: Step, then: Step) -> None:
    """What comes too early is refused, and what it waits for is said."""
    unsafe = check_order((then, first), WISH)[0]

    assert unsafe.step is then
    assert unsafe.because.startswith("it comes before ")


@pytest.mark.parametrize("step", [*PLAN[1:], START], ids=str)
def test_the_guard_goes_last(step: Step) -> None:
    """Nothing comes after its removal; the saved one goes after it."""
    unguarded = replace(WISH, guard=None)
    for last in (RemoveGuard(), SaveGuard(None)):
        found = [one.step for one in check_order((last, step), unguarded)]
        assert last in found
    assert check_order((RemoveGuard(), SaveGuard(None)), unguarded) == ()
    assert len(check_order((SaveGuard(None), RemoveGuard()), unguarded)) == 1


@pytest.mark.parametrize("first", [GUARD, LINKS, CA, KEY, SHUNT, TRAP, REINSTALL], ids=str)
def test_relaxing_waits_for_what_is_loaded(first: Step) -> None:
    """A trap that is loaded afterwards would require ESP again."""
    relaxing = replace(TIGHTEN, optional=True)
    optional = replace(WISH, optional=True)

    assert [one.step for one in check_order((relaxing, first), optional)] == [relaxing]
    assert check_order((first, relaxing), optional) == ()


@given(st.permutations(PLAN))
def test_every_order(steps: list[Step]) -> None:
    """A plan in any order: without what is refused, no rule is broken; what breaks one is refused.

    Each refused step comes before one that it must wait for.
    """
    refused = [one.step for one in check_order(steps, WISH)]
    broken = {
        id(early)
        for early, late in combinations(steps, 2)
        for first, then in RULES
        if early is then and late is first
    }

    assert broken <= {id(step) for step in refused}
    left = [step for step in steps if all(step is not one for one in refused)]
    assert check_order(left, WISH) == ()
    # What the guard's own table and the saved one are.
    assert GUARD not in refused


@given(st.lists(st.sampled_from(PLAN), max_size=40), st.integers(0, 200))
def test_what_is_done_together(steps: list[Step], traps: int) -> None:
    """The order is kept, and only loads of a kind, or policies that are put back, go together: no
    step is under way beside one that it waits for, and none that opens beside another."""
    steps += [TRAP] * traps
    runs = list(together(steps))

    assert [step for run in runs for step in run] == steps
    for run in runs:
        assert len(run) <= TOGETHER_MOST
        assert len({kind_of(step) for step in run}) == 1
        assert len(run) == 1 or not any(map(opens, run))
    if traps > TOGETHER_MOST:
        assert max(map(len, runs)) == TOGETHER_MOST


def test_what_is_wanted_stays() -> None:
    """Wherever it is in the plan: the guard, a connection, the key."""
    assert WISH.guard is not None
    assert WISH.credentials is not None
    (unload, *others) = (UnloadConnection(one.name) for one in WISH.connections)
    steps: tuple[Step, ...] = (
        LoadGuard(replace(WISH.guard, exempt=(LinkId(2, "eth0"),))),
        ExemptLinks((LinkId(2, "eth0"),)),
        unload,
        *others,
        UnloadKey(WISH.credentials.key_id),
        RemoveGuard(),
        SaveGuard(None),
    )

    for step in steps:
        assert [one.step for one in check_order((step,), WISH)] == [step]
    assert check_order((UnloadConnection("ipsec-10.9.0.0/16"),), WISH) == ()
