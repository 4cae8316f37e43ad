"""The repair budget: repairs go on, but never at full speed for long."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.budget import EXEMPT, MOST, REFILL, Budget, Waiting
from ipsec_agent.core.model import Action, Credentials, DesiredGuard, LinkId, Secret
from ipsec_agent.core.steps import (
    ExemptLinks,
    GuardFlows,
    LoadGuard,
    LoadKey,
    Poke,
    ReinstallPolicies,
    RemoveGuard,
    SaveGuard,
    SetMtu,
    StartCharon,
    Step,
)

GUARD = LoadGuard(DesiredGuard("text", "mark"))
POLICIES = ReinstallPolicies("a", "a", Action.ENCRYPT)
STEPS: tuple[Step, ...] = (GUARD, POLICIES, StartCharon())


def test_several_steps_of_a_kind_are_one_repair() -> None:
    """A flush of ten connections is mended as one."""
    spent = Budget().spent((POLICIES,) * 10)

    assert spent.left == (("policies", MOST - 1),)
    assert spent.exhausted() == ()


def test_exhausted() -> None:
    """A kind that is used up waits; the others, and what repairs nothing, go on."""
    budget = Budget()
    for _ in range(int(MOST)):
        budget = budget.spent((GUARD,))

    assert budget.exhausted() == (Waiting("guard"),)
    assert budget.allowed((GUARD, POLICIES, Poke(()))) == (POLICIES, Poke(()))
    assert 0 < budget.wait() <= REFILL
    assert budget.at(budget.time + budget.wait()).allowed((GUARD,)) == (GUARD,)


def test_a_key_that_is_unloaded_again_and_again() -> None:
    """Waits like all else; charon forgets a removed CA at once."""
    key = LoadKey(Credentials("aa", Secret(b""), ()))
    budget = Budget()
    for _ in range(int(MOST)):
        budget = budget.spent((key,))

    assert budget.exhausted() == (Waiting("private key"),)
    assert budget.allowed((key, replace(key, only=True))) == (replace(key, only=True),)


@given(st.lists(st.tuples(st.sampled_from(STEPS), st.floats(0, 20)), max_size=200))
def test_rate(repairs: list[tuple[Step, float]]) -> None:
    """However the wishes for repair come, no more than the budget and its refill are allowed."""
    budget, now = Budget(), 0.0
    done = dict.fromkeys(STEPS, 0)
    for step, pause in repairs:
        now += pause
        budget = budget.at(now)
        if budget.allowed((step,)):
            budget = budget.spent((step,))
            done[step] += 1
    assert all(count <= MOST + now / REFILL + 1e-6 for count in done.values())


ETH1, PODS = LinkId(3, "eth1"), LinkId(4, "pods")


@pytest.mark.parametrize(
    ("step", "other", "told"),
    [
        (
            ExemptLinks((PODS,), (), (ETH1, PODS)),
            ExemptLinks((), (), (PODS,)),
            Waiting(EXEMPT, "eth1"),
        ),
        (
            ExemptLinks((PODS,), (4789,), (PODS,)),
            ExemptLinks((PODS,)),
            Waiting(EXEMPT, "UDP ports of tunnels"),
        ),
        (GuardFlows("a table"), GuardFlows(""), Waiting("filter of flowtables")),
        (SaveGuard(GUARD.guard), SaveGuard(None), Waiting("saved guard")),
        (SetMtu(2, 1400), SetMtu(2, 1500), Waiting("MTU of link 2")),
        (RemoveGuard(), GUARD, Waiting("no guard")),
    ],
)
def test_the_same_once_more_is_a_repair(step: Step, other: Step, told: Waiting) -> None:
    """What follows the links is made again and again; only what was undone is made again alike."""
    budget = Budget()
    for _ in range(20):
        budget = budget.spent((step,)).after((step,), {str(step)})
        if not isinstance(step, RemoveGuard):
            budget = budget.spent((other,)).after((other,), {str(other)})
    assert budget.exhausted() == () or isinstance(step, RemoveGuard)

    budget = Budget()
    for _ in range(20):
        budget = budget.spent((step,)).after((step,), {str(step)})
    assert budget.exhausted() == (told,)


def test_a_link_is_guarded_again_at_once() -> None:
    """However often somebody exempts it; but to exempt one again, which he took away, can wait."""
    budget = Budget()
    narrows, widens = ExemptLinks((PODS,), (), (ETH1, PODS)), ExemptLinks((PODS,), (), ())
    for _ in range(20):
        budget = budget.spent((narrows,)).after((narrows,), {str(narrows)})

    assert budget.allowed((narrows, widens)) == (narrows,)
    assert budget.at(REFILL).allowed((widens,)) == (widens,)


def test_the_newest_change_is_told() -> None:
    """The connections whose policies go are named, as the links are."""
    budget = Budget()
    for _ in range(int(MOST)):
        budget = budget.spent((POLICIES,))

    assert budget.exhausted() == (Waiting("policies", "a"),)
    assert budget.at(REFILL * MOST) == Budget(time=REFILL * MOST, changed=(("policies", "a"),))
