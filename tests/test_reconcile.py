"""The loop on a machine of dicts: it converges from any state, with a failure at any step."""

from collections.abc import Callable
from dataclasses import replace
from random import Random

import pytest

from ipsec_agent.core.config import Config
from ipsec_agent.core.health import LogLine
from ipsec_agent.core.status import Snapshot, State, document
from ipsec_agent.reconcile import Reconciler
from tests.configs import config
from tests.fakes import PROCESS, FakeMachine, network


def reconciler(machine: FakeMachine, settings: Config) -> Reconciler:
    """A loop whose passes the test makes by hand."""
    return Reconciler(machine, settings, lambda _snapshot: None)


def lose_charon(machine: FakeMachine) -> None:
    """SIGKILL."""
    machine.kill_charon_by_hand()


def lose_policies(machine: FakeMachine) -> None:
    """`ip xfrm policy flush`."""
    machine.kernel.clear()


def unload_all(machine: FakeMachine) -> None:
    """`swanctl --load-all` with an empty file."""
    machine.loaded.clear()
    machine.kernel.clear()


def lose_credentials(machine: FakeMachine) -> None:
    """`swanctl --load-creds --clear`."""
    machine.held.clear()
    machine.trusted.clear()


def lose_guard(machine: FakeMachine) -> None:
    """`nft flush ruleset`."""
    machine.table = None


def alter_guard(machine: FakeMachine) -> None:
    """A rule of the table deleted by hand: the form is one that no text is known to make."""
    if machine.table is not None:
        machine.table = replace(machine.table, mark="", form="other")


def stop_charon(machine: FakeMachine) -> None:
    """SIGSTOP."""
    if machine.process is not None:
        machine.stop_by_signal()


def wedge_charon(machine: FakeMachine) -> None:
    """It has missed two deadlines."""
    machine.responsive, machine.missed = False, 2


def nothing(_machine: FakeMachine) -> None:
    """No harm."""


HARMS: tuple[Callable[[FakeMachine], None], ...] = (
    nothing,
    lose_charon,
    lose_policies,
    unload_all,
    lose_credentials,
    lose_guard,
    alter_guard,
    stop_charon,
    wedge_charon,
)
CONFIGS = (
    config(),
    config(("10.0.0.0/16", "10.1.0.0/16"), ("10.0.9.0/24",)),
    config(("10.0.0.0/24",), ("10.0.9.0/24", "10.0.0.128/25")),
    config(key="bb"),
    config(("10.0.0.0/16", "fd00::/64")),
)


def is_converged(machine: FakeMachine, snapshot: Snapshot) -> bool:
    """Whether the machine is as the config wants it."""
    return (
        machine.process is not None
        and machine.responsive
        and not machine.process.stopped
        and machine.table is not None
        and snapshot.desired.guard is not None
        and machine.table.mark == snapshot.desired.guard.mark
        and machine.table.exempt == snapshot.desired.guard.exempt
        and set(machine.loaded) == {item.name for item in snapshot.desired.connections}
        and set(machine.kernel) == {policy.selector for policy in snapshot.desired.policies}
        and snapshot.problems == ()
        and snapshot.state is State.RUNNING
    )


@pytest.mark.parametrize("seed", range(20))
async def test_converges_from_any_state(seed: int) -> None:
    """Configs and harms in random order: one pass after each leads to the wish."""
    chance = Random(seed)
    machine = FakeMachine(network("10.0.0.5", "fd00::5"))
    loop = reconciler(machine, CONFIGS[0])
    for _ in range(12):
        chance.choice(HARMS)(machine)
        loop.adopt(chance.choice(CONFIGS))

        snapshot = await loop.one_pass()

        assert is_converged(machine, snapshot), (snapshot.problems, machine.calls)


@pytest.mark.parametrize("step", range(1, 12))
async def test_failure_at_each_step(step: int) -> None:
    """A step that fails is named in the status, stops no neighbour, and the next pass mends it."""
    machine = FakeMachine(network("10.0.0.5"))
    machine.fail_at = step
    loop = reconciler(machine, CONFIGS[1])

    first = await loop.one_pass()
    second = await loop.one_pass()

    steps_needed = 7  # start, CA, key, one shunt, two traps, and one more never comes
    if step < steps_needed:
        assert first.problems[0].message == "refused for the test"
    assert is_converged(machine, second), second.problems


async def test_idle_pass_touches_nothing() -> None:
    """A pass with nothing to do makes no call."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[1])
    await loop.one_pass()
    before = len(machine.calls)

    await loop.one_pass()

    assert len(machine.calls) == before


async def test_charon_that_does_not_start() -> None:
    """It is a problem with charon's own words, and the state stays `starting`."""
    machine = FakeMachine(network("10.0.0.5"))
    machine.refuses_to_start = True
    loop = reconciler(machine, CONFIGS[0])

    snapshot = await loop.one_pass()

    assert snapshot.state is State.STARTING
    assert [problem.message for problem in snapshot.problems[:2]] == [
        "did not come up",
        "charon does not run; no new SA can be negotiated",
    ]


async def test_config_refused_at_runtime() -> None:
    """An address that is in neither list keeps the last wish in force, and says so."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    await loop.one_pass()
    loop.adopt(config(("192.0.2.0/24",)))

    snapshot = await loop.one_pass()

    assert "ipsec-10.0.0.0/16" in machine.loaded
    assert "10.0.0.5 is in neither" in snapshot.problems[0].message
    assert snapshot.state is State.DEGRADED


async def test_log_line_becomes_a_problem() -> None:
    """A refused peer is a problem that quotes charon, and dates from when it was first seen."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    now = (await loop.one_pass()).observed.time
    loop.reporter.note(
        LogLine("peer-refuses-us", "received AUTHENTICATION_FAILED", "10.0.0.9", "hint", now)
    )

    first = (await loop.one_pass()).problems
    second = (await loop.one_pass()).problems

    assert first[0].message == "charon says of 10.0.0.9: received AUTHENTICATION_FAILED"
    assert second[0].since == first[0].since > 0


async def test_document() -> None:
    """The status says what is, and is never healthy while a policy is missing."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[1])

    good = document(await loop.one_pass())
    machine.refuses_to_start = True
    machine.kill_charon_by_hand()
    lose_policies(machine)
    bad = document(await loop.one_pass())

    assert (good["schema"], good["state"], good["healthy"]) == (1, "running", True)
    assert good["policies"] == {"desired": 10, "installed": 10, "missing": [], "foreign": []}
    assert good["charon"]["pid"] == PROCESS.pid
    assert (bad["state"], bad["healthy"], bad["charon"]) == ("degraded", False, None)
    assert bad["policies"]["installed"] == 0
    codes = [problem["code"] for problem in bad["problems"]]
    assert "charon-down" in codes
    assert "policies-missing" in codes
    assert [item["enforced"] for item in bad["connections"]] == [False] * 4
