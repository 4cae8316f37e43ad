"""The loop on a machine of dicts: it converges from any state, with a failure at any step."""

import asyncio
import errno
import signal
from collections.abc import Callable
from ipaddress import ip_address
from random import Random

import pytest
from msgspec.structs import replace

from ipsec_agent import reconcile
from ipsec_agent.core.charon_log import Said
from ipsec_agent.core.config import Config
from ipsec_agent.core.deaths import Death
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.esp import EspAbility, KernelEvidence, Trial, dummy_sas
from ipsec_agent.core.model import LinkId
from ipsec_agent.core.observed import (
    IkePorts,
    IkeSa,
    Link,
    Namespace,
    OwnAddress,
    SecurityAssociation,
)
from ipsec_agent.core.plan import plan
from ipsec_agent.core.problems.peer_faults import Hearing
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.status import Snapshot, State, document
from ipsec_agent.core.steps import (
    LoadConnection,
    LoadGuard,
    RemoveGuard,
    SaveGuard,
    Step,
    UnloadConnection,
)
from ipsec_agent.errors import StartError
from ipsec_agent.reconcile import GUARD_LOOK, Reconciler
from ipsec_agent.reporter import COUNTERPARTS
from tests.configs import config
from tests.fakes import PROCESS, FakeMachine, network
from tests.vm import healthy_vm, with_sa


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


def free_ports(machine: FakeMachine) -> None:
    """Somebody had charon's ports when it started, and has gone."""
    if machine.process is not None:
        machine.ports = IkePorts(versions=(4, 6))


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
    free_ports,
)
ENDS = (ip_address("10.0.0.5"), ip_address("10.0.0.9"))
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


@pytest.mark.parametrize("seed", range(40))
async def test_converges_with_a_failure_anywhere(seed: int) -> None:
    """Any state, any config, and any one step that fails: the pass after it leads to the wish."""
    chance = Random(seed)
    machine = FakeMachine(network("10.0.0.5", "fd00::5"))
    loop = reconciler(machine, CONFIGS[0])
    failed = 0
    for _ in range(12):
        chance.choice(HARMS)(machine)
        loop.adopt(chance.choice(CONFIGS))
        machine.fail_at = len(machine.calls) + chance.randint(1, 6)

        await loop.one_pass()
        failed += len(machine.calls) >= machine.fail_at
        machine.fail_at = None
        snapshot = await loop.one_pass()

        assert is_converged(machine, snapshot), (snapshot.problems, machine.calls)
    assert failed > 3


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


async def test_a_kernel_without_esp() -> None:
    """Everything is enforced, and it counts as started; it is critical until the module appears."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[1])
    trial = Trial(dummy_sas(CONFIGS[1], ENDS)[0], errno.EPROTONOSUPPORT, "Protocol not supported")
    machine.ability = EspAbility((trial,), KernelEvidence())

    without = await loop.one_pass()
    machine.ability = EspAbility((replace(trial, error=0),))
    with_it = await loop.one_pass()

    assert set(machine.kernel) == {policy.selector for policy in without.desired.policies}
    assert machine.table is not None
    assert (without.state, without.healthy) == (State.DEGRADED, False)
    assert [(one.code, one.severity) for one in without.problems] == [
        ("esp-unavailable", Severity.CRITICAL)
    ]
    assert (with_it.state, with_it.healthy, with_it.problems) == (State.RUNNING, True, ())


async def test_a_kernel_that_is_still_tried() -> None:
    """What waits for IPsec waits no longer for that; but nobody is healthy before it is known."""
    machine = FakeMachine(network("10.0.0.5"))
    machine.ability = EspAbility(pending=True)

    snapshot = await reconciler(machine, CONFIGS[1]).one_pass()

    assert (snapshot.state, snapshot.healthy) == (State.DEGRADED, False)


async def test_idle_pass_touches_nothing() -> None:
    """A pass with nothing to do makes no call."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[1])
    await loop.one_pass()
    before = len(machine.calls)

    await loop.one_pass()

    assert len(machine.calls) == before


async def test_what_has_not_changed_is_not_worked_out_again() -> None:
    """The wish of a pass is that of the one before, until the config or a link is another."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    first = (await loop.one_pass()).desired
    machine.facts = replace(machine.facts)

    assert (await loop.one_pass()).desired is first

    loop.adopt(replace(CONFIGS[0], esp_proposals=("aes256gcm16",)))
    other = (await loop.one_pass()).desired
    assert other.connections != first.connections
    pair = (Link(here, f"v{here}", 1400, up=True, kind="veth", lower=7 - here) for here in (3, 4))
    machine.facts = replace(machine.facts, links=(*machine.facts.links, *pair))
    assert (await loop.one_pass()).desired.guard != other.guard
    loop.lower_guard(lowered=True)
    assert (await loop.one_pass()).desired.guard is None


async def test_charon_that_does_not_start() -> None:
    """It is a problem with charon's own words, and the state stays `starting`."""
    machine = FakeMachine(network("10.0.0.5"))
    machine.refuses_to_start = True
    loop = reconciler(machine, CONFIGS[0])

    snapshot = await loop.one_pass()

    assert snapshot.state is State.STARTING
    assert [problem.message for problem in snapshot.problems[:2]] == [
        "did not come up",
        "charon is not running; no new SA can be negotiated",
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


@pytest.mark.parametrize("where", ["before_answer", "perform"])
async def test_the_guard_does_not_wait_for_charon(
    monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """Neither while its answer is waited for, nor while a step is; and the pass goes on."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, config())
    await loop.one_pass()
    unload_all(machine)
    real = getattr(machine, where)

    async def after_a_while(*words: object) -> object:
        if not words or isinstance(words[0], LoadConnection):
            monkeypatch.setattr(machine, where, real)
            lose_guard(machine)
            async with asyncio.timeout(20):
                while machine.table is None:  # noqa: ASYNC110 - a fake's
                    await asyncio.sleep(GUARD_LOOK / 10)
        return await real(*words)

    monkeypatch.setattr(machine, where, after_a_while)

    snapshot = await loop.one_pass()

    assert is_converged(machine, snapshot)


async def test_a_guard_that_is_lowered_stays_so_while_charon_is_awaited(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The operator took it down."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, config())
    loop.lower_guard(lowered=True)
    await loop.one_pass()

    async def slow() -> None:
        await asyncio.sleep(3 * GUARD_LOOK)

    monkeypatch.setattr(machine, "before_answer", slow)

    await loop.one_pass()

    assert machine.table is None


async def test_a_fresh_agent_that_cannot_place_itself() -> None:
    """What the agent before it left stands, and the guard is put up, until the address is there."""
    machine = FakeMachine(network("10.0.0.5"))
    await reconciler(machine, CONFIGS[1]).one_pass()
    loaded, kernel = set(machine.loaded), set(machine.kernel)
    facts, machine.facts = machine.facts, network()
    lose_guard(machine)
    loop = reconciler(machine, CONFIGS[1])

    snapshot = await loop.one_pass()

    assert (set(machine.loaded), set(machine.kernel)) == (loaded, kernel)
    assert machine.table is not None
    assert snapshot.state is State.STARTING
    assert "no address" in snapshot.problems[0].message
    machine.facts = facts
    assert is_converged(machine, await loop.one_pass())


async def test_an_uplink_that_loses_its_address_stays_one() -> None:
    """The bridge of a container network does not take its place, though it is encrypted, too."""
    facts = network("10.0.0.5")
    bridge = Link(3, "docker0", 1400, up=True, kind="bridge")
    veth = Link(4, "veth1", 1400, up=True, kind="veth", master=3, lower=2, namespace=0)
    inner = Link(2, "eth0", 1400, up=True, kind="veth", lower=4, namespace=1)
    with_bridge = replace(
        facts,
        links=(*facts.links, bridge, veth),
        namespaces=(Namespace(0, (inner,)),),
        addresses=(*facts.addresses, OwnAddress(ip_address("10.0.7.1"), 24, 3)),
    )
    machine = FakeMachine(with_bridge)
    loop = reconciler(machine, CONFIGS[0])
    await loop.one_pass()
    kernel, table = dict(machine.kernel), machine.table
    assert table is not None
    assert table.exempt == (LinkId(3, "docker0"), LinkId(4, "veth1"))
    machine.facts = replace(with_bridge, addresses=with_bridge.addresses[1:], default_links=())

    snapshot = await loop.one_pass()

    assert machine.kernel == kernel
    assert machine.table == replace(table, exempt=()), "every link is judged meanwhile"
    assert "10.0.0.5 is gone, and no other address" in snapshot.problems[0].message
    machine.facts = with_bridge
    assert is_converged(machine, await loop.one_pass())


async def test_a_step_that_always_fails() -> None:
    """A disk that is full is a problem, and does not keep a VM that encrypts from being ready."""
    machine = FakeMachine(network("10.0.0.5"))

    perform = machine.perform

    async def full(step: Step) -> None:
        if isinstance(step, SaveGuard):
            raise StartError("no space left on device")
        await perform(step)

    machine.perform = full  # type: ignore[method-assign]
    snapshot = await reconciler(machine, CONFIGS[0]).one_pass()

    assert snapshot.state is State.DEGRADED
    assert [problem.message for problem in snapshot.problems] == ["no space left on device"]


async def test_a_plan_that_would_open_what_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a bug: the step is left out, all else is done, and the status says it."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[1])
    await loop.one_pass()
    machine.kill_charon_by_hand()
    monkeypatch.setattr(reconcile, "plan", lambda drift: (RemoveGuard(), *plan(drift)))

    snapshot = await loop.one_pass()

    assert machine.table is not None
    assert "remove guard" not in machine.calls
    assert set(machine.loaded) == {item.name for item in snapshot.desired.connections}
    (problem,) = snapshot.problems
    assert (problem.code, problem.severity) == ("plan-unsafe", Severity.CRITICAL)
    assert problem.message.endswith("(remove the guard): the guard is wanted")


async def test_a_step_that_is_planned_too_early(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is done in its place once what it waits for is there, within the same pass."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[2])
    await loop.one_pass()
    loop.adopt(CONFIGS[1])
    machine.calls.clear()

    def unloads_first(drift: Drift) -> tuple[Step, ...]:
        return tuple(sorted(plan(drift), key=lambda step: not isinstance(step, UnloadConnection)))

    monkeypatch.setattr(reconcile, "plan", unloads_first)

    snapshot = await loop.one_pass()

    assert machine.calls.index("load ipsec-10.0.0.0/16") < machine.calls.index(
        "unload ipsec-10.0.0.0/24"
    )
    assert set(machine.loaded) == {item.name for item in snapshot.desired.connections}
    assert {problem.code for problem in snapshot.problems} == {"plan-unsafe"}


async def test_a_fast_opponent() -> None:
    """Who undoes each repair at once is answered a few times, then only as the budget refills."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    await loop.one_pass()
    perform = machine.perform

    async def in_vain(step: Step) -> None:
        await perform(step)
        if isinstance(step, LoadGuard):
            machine.table = None

    machine.perform = in_vain  # type: ignore[method-assign]
    machine.table = None
    machine.calls.clear()
    snapshot = await loop.one_pass()
    for _ in range(50):
        snapshot = await loop.one_pass()

    assert 5 <= machine.calls.count("load guard") <= 12
    codes = {problem.code for problem in snapshot.problems}
    assert {"repair-paused", "guard-missing"} <= codes


@pytest.mark.parametrize(("seen", "code"), [(True, "charon-dies"), (False, "repair-paused")])
async def test_a_charon_that_keeps_ending(seen: bool, code: str) -> None:
    """It is told how it ends; another program is accused only where that is not known."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    snapshot = await loop.one_pass()
    for _ in range(12):
        if machine.process is not None:
            machine.kill_charon_by_hand()
            now = snapshot.observed.time
            machine.deaths += (Death(now, -signal.SIGKILL),) if seen else ()
        snapshot = await loop.one_pass()

    codes = {problem.code for problem in snapshot.problems}
    assert codes & {"charon-dies", "repair-paused"} == {code}


async def test_log_line_becomes_a_problem() -> None:
    """A refused peer is a problem that quotes charon, and dates from when it was first seen."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    now = (await loop.one_pass()).observed.time
    assert not loop.reporter.heard(Said("IKE", 0, "initiating IKE_SA a[7] to 10.0.0.9", 7), now)
    refused = Said("IKE", 1, "received AUTHENTICATION_FAILED notify error", 7)
    assert loop.reporter.heard(refused, now)

    first = (await loop.one_pass()).problems
    second = (await loop.one_pass()).problems

    assert first[0].message == (
        f"10.0.0.9 refuses this VM's certificate or signature (charon: {refused.text})"
    )
    assert second[0].since == first[0].since > 0


async def test_the_peer_of_an_sa_is_remembered() -> None:
    """charon names an SA by its number alone, when it is gone: it was seen, or told, before."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    await loop.one_pass()
    machine.sas = {7: IkeSa(7, "a", "ESTABLISHED", *ENDS, initiator=True, age=1)}
    now = (await loop.one_pass()).observed.time
    machine.sas = {}
    for number in (7, 8):
        loop.reporter.heard(Said("IKE", 1, "received NO_PROPOSAL_CHOSEN notify", number), now)

    snapshot = await loop.one_pass()
    assert [problem.subject for problem in snapshot.problems] == ["", "10.0.0.9"]


async def test_the_oldest_sas_are_forgotten() -> None:
    """A charon that runs for years numbers millions."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    now = (await loop.one_pass()).observed.time
    for number in range(1, COUNTERPARTS + 2):
        begun = f"initiating IKE_SA a[{number}] to 10.0.0.9"
        assert not loop.reporter.heard(Said("IKE", 0, begun, number), now)
    for number in (1, 2):
        loop.reporter.heard(Said("IKE", 1, "received NO_PROPOSAL_CHOSEN notify", number), now)

    snapshot = await loop.one_pass()
    assert [problem.subject for problem in snapshot.problems] == ["", "10.0.0.9"]


async def test_what_charon_says_of_a_peer_beside_complaints() -> None:
    """An answer, a handshake or a farewell; the machine is told whom to look for."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    now = (await loop.one_pass()).observed.time
    say = loop.reporter.heard
    say(Said("IKE", 0, "initiating IKE_SA a[7] to 10.0.0.9", 7), now)
    silent = Said("IKE", 1, "giving up after 3 retransmits", 7)
    say(silent, now)
    assert [one.heard for one in (await loop.one_pass()).suspects] == [Hearing(tried=now)]
    assert machine.suspected == (ENDS[1],)

    received = "received packet: from 10.0.0.9[4500] to 10.0.0.5[4500] (80 bytes)"
    assert not say(Said("NET", 1, received), now + 1)
    assert not say(Said("IKE", 0, "received DELETE for IKE_SA a[7]", 7), now + 2)
    (suspect,) = (await loop.one_pass()).suspects
    assert suspect.heard == Hearing(answered=now + 1, farewell=now + 2, tried=now)

    made = "CHILD_SA a{3} established with SPIs c1_i c2_o and TS 10.0.0.5/32 === 10.0.0.9/32"
    assert not say(Said("IKE", 0, made, 7), now + 3)
    assert not (await loop.one_pass()).suspects
    assert len(machine.suspected) == 0


async def test_packets_that_only_go_out(monkeypatch: pytest.MonkeyPatch) -> None:
    """The machine is told to probe the peer, each 5 s, and the loop does not sleep longer."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    began = (await loop.one_pass()).observed.time
    monkeypatch.setattr(reconcile, "plan", lambda _drift: ())
    here, there = ENDS
    probed = []
    for after in range(0, 40, 2):
        monkeypatch.setattr("tests.fakes.time.time", lambda after=after: began + after)
        machine.kernel_sas = (
            SecurityAssociation(here, there, 7, 1, packets=after + 1),
            SecurityAssociation(there, here, 8, 1),
        )
        before = len(machine.probed)
        await loop.one_pass()
        probed += [after] * (len(machine.probed) - before)

    assert probed == [16, 22, 28, 34]
    assert set(machine.probed) == {there}
    assert loop.reporter.due <= 5


async def test_a_farewell_to_a_duplicate(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where another SA is there later, the peer has stayed, and its silence is one."""
    machine = FakeMachine(network("10.0.0.5"))
    loop = reconciler(machine, CONFIGS[0])
    now = (await loop.one_pass()).observed.time
    vm = with_sa(healthy_vm(), "10.0.0.9")
    assert vm.observed.charon is not None
    machine.sas = {sa.unique_id: sa for sa in vm.observed.charon.sas}
    # Nothing repairs what this kernel lacks of the SA.
    monkeypatch.setattr(reconcile, "plan", lambda _drift: ())
    loop.reporter.heard(Said("IKE", 0, "initiating IKE_SA a[7] to 10.0.0.9", 7), now)
    loop.reporter.heard(Said("IKE", 0, "received DELETE for IKE_SA a[7]", 7), now - 10)
    await loop.one_pass()
    machine.sas = {}
    loop.reporter.heard(Said("IKE", 1, "giving up after 3 retransmits", 7), now)

    assert [one.gone for one in (await loop.one_pass()).suspects] == [0]


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
