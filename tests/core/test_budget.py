"""The repair budget: repairs go on, but never at full speed for long."""

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.budget import MOST, REFILL, Budget
from ipsec_agent.core.model import Action, DesiredGuard
from ipsec_agent.core.steps import LoadGuard, Poke, ReinstallPolicies, StartCharon, Step

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

    assert budget.exhausted() == ("guard",)
    assert budget.allowed((GUARD, POLICIES, Poke(()))) == (POLICIES, Poke(()))
    assert 0 < budget.wait() <= REFILL
    assert budget.at(budget.time + budget.wait()).allowed((GUARD,)) == (GUARD,)


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
