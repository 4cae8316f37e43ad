"""The plan: empty when nothing is to do, and safe to be cut after every step."""

import asyncio
from collections.abc import Callable
from contextlib import suppress
from ipaddress import ip_address, ip_network
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.clock import ClockFacts, worth_saving
from ipsec_agent.core.config import AgentConfig, GuardMode
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard, guard_of, unplaced
from ipsec_agent.core.drain import Drain, Phase
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.model import (
    Action,
    Address,
    Desired,
    Direction,
    LinkId,
    PolicySelector,
)
from ipsec_agent.core.observed import (
    Charon,
    ChildSa,
    IkeSa,
    Link,
    LoadedConnection,
    NetworkFacts,
    Observed,
    Policy,
    SecurityAssociation,
)
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.order import Kind, check_order, kind_of
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.plan import plan
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.steps import (
    ContinueCharon,
    DeletePolicy,
    DeleteState,
    ExemptLinks,
    GuardFlows,
    KillCharon,
    LoadConnection,
    LoadGuard,
    LoadKey,
    ReinstallPolicies,
    RemoveGuard,
    SaveGuard,
    SaveTime,
    StartCharon,
    TerminateSa,
    UnloadConnection,
)
from ipsec_agent.core.swanctl import credentials_mark, fingerprint
from ipsec_agent.errors import CharonRefusedError, KernelError
from tests.configs import config
from tests.core.test_orphans import child_sa, ike_sa
from tests.examples import examples
from tests.fakes import PROCESS, FakeMachine, installed, network

OWN = ip_address("10.0.0.5")
HERE = Placement(OWN, (OWN,))
PEERS = tuple(ip_address(f"10.0.{third}.{last}") for third in (0, 1, 2) for last in (1, 129, 200))

subnets = st.lists(
    st.sampled_from(
        ["10.0.0.0/16", "10.0.0.0/24", "10.0.1.0/24", "10.0.1.128/25", "10.0.2.200/32"]
    ),
    unique=True,
    max_size=4,
).map(tuple)
wishes = st.builds(
    lambda ipsec, no_ipsec, key, optional: config(
        ("10.0.0.0/28", *ipsec), no_ipsec, key=key, optional=optional
    ),
    subnets,
    subnets.map(lambda found: tuple(text for text in found if text != "10.0.0.0/16")),
    st.sampled_from(["aa", "bb"]),
    st.booleans(),
).filter(lambda made: Promise.of(made).encrypted(OWN))


def protects(policies: tuple[Policy, ...], peer: Address) -> bool:
    """Whether the kernel lets nothing through in clear to a peer: a PASS beats every trap."""
    matching = [
        policy
        for policy in policies
        if policy.selector.direction is Direction.OUT
        and OWN in policy.selector.source
        and peer in policy.selector.destination
    ]
    return bool(matching) and all(policy.esp for policy in matching)


async def pass_until(machine: FakeMachine, wish: Desired, cut: int) -> tuple[Policy, ...]:
    """Perform a plan's first steps and return the policies then."""
    steps = plan(Drift(wish, await machine.observe()))
    assert check_order(steps, wish) == ()
    for step in steps[:cut]:
        await machine.perform(step)
    return tuple(machine.kernel.values())


@settings(max_examples=examples(150))
@given(wishes, wishes, st.integers(0, 12), st.integers(0, 2))
def test_safe_at_every_prefix(before: object, after: object, cut: int, lies: int) -> None:
    """A flow that must be encrypted before and after is protected wherever the plan is cut.

    Peers may have lied meanwhile: what they made is ended, whatever else there is to do.
    """

    async def scenario() -> None:
        machine = FakeMachine(network("10.0.0.5"))
        old, new = desired(before, HERE), desired(after, HERE)  # type: ignore[arg-type]
        machine.process = PROCESS
        for _ in range(2):
            await pass_until(machine, old, 99)
        both = not old.optional and not new.optional
        protected = {
            peer
            for peer in PEERS
            if both
            and Promise.of(before).encrypts(OWN, peer)  # type: ignore[arg-type]
            and Promise.of(after).encrypts(OWN, peer)  # type: ignore[arg-type]
        }
        policies = tuple(machine.kernel.values())
        assert all(protects(policies, peer) for peer in protected)
        false = replace(child_sa(1, 100), transport=False)
        machine.sas |= {number: ike_sa(number, false) for number in range(lies)}

        assert old.optional == any(policy.optional for policy in policies)
        policies = await pass_until(machine, new, cut)
        assert len(machine.sas) == max(lies - cut, 0)

        assert {peer for peer in protected if not protects(policies, peer)} == set()
        for _ in range(2):
            policies = await pass_until(machine, new, 99)
        # What is to be encrypted is trapped, and clear passes only where it may.
        for peer in PEERS:
            if Promise.of(after).encrypts(OWN, peer):  # type: ignore[arg-type]
                assert protects(policies, peer) is not new.optional

    asyncio.run(scenario())


@settings(max_examples=examples(50))
@given(wishes, wishes, st.booleans())
def test_enforcing_needs_no_load(before: object, after: object, hangs: bool) -> None:
    """charon refuses each load, or hangs at the first trap: of the traps that are wanted, none lets
    pass what has no SA."""

    async def scenario() -> None:
        machine = FakeMachine(network("10.0.0.5"))
        machine.process = PROCESS
        old, new = desired(before, HERE), desired(after, HERE)  # type: ignore[arg-type]
        for _ in range(2):
            await pass_until(machine, old, 99)
        machine.refuses_loads = True

        for step in plan(Drift(new, await machine.observe())):
            if hangs and kind_of(step) is Kind.TRAP:
                break
            with suppress(CharonRefusedError):
                await machine.perform(step)

        wanted = {policy.selector for policy in new.policies}
        passing = {
            policy.selector for policy in machine.kernel.values() if policy.optional
        } & wanted
        assert not passing or new.optional

    asyncio.run(scenario())


def flushed(machine: FakeMachine) -> None:
    """As `ip xfrm policy flush`."""
    machine.kernel.clear()


def stopped(machine: FakeMachine) -> None:
    """As SIGTERM of charon: its policies go with it."""
    machine.kill_charon_by_hand()
    machine.kernel.clear()


def hung(machine: FakeMachine) -> None:
    """charon answers no more."""
    machine.responsive, machine.missed = False, 2


def killed(machine: FakeMachine) -> None:
    """As SIGKILL of charon."""
    machine.kill_charon_by_hand()


def offloading(machine: FakeMachine) -> None:
    """Somebody makes a flowtable."""
    assert machine.table is not None
    machine.table = replace(machine.table, flowtables=("inet fast f",))


def whole(machine: FakeMachine) -> None:
    """No harm."""


def guarded(made: object) -> Desired:
    """What a config wants, the guard included."""
    wanted = desired_guard(made, HERE)  # type: ignore[arg-type]
    return replace(desired(made, HERE), guard=wanted)  # type: ignore[arg-type]


@settings(max_examples=examples(150))
@given(
    wishes,
    wishes,
    st.integers(0, 14),
    st.sampled_from([whole, flushed, stopped, hung, killed, offloading]),
)
def test_the_guard_stands_at_every_prefix(
    before: object, after: object, cut: int, harm: Callable[[FakeMachine], None]
) -> None:
    """Whatever was done to charon and its policies, and wherever the plan is cut, the guard stands,
    and judges each flow that must be encrypted before and after."""

    async def scenario() -> None:
        machine = FakeMachine(network("10.0.0.5"))
        machine.process = PROCESS
        old, new = guarded(before), guarded(after)
        await pass_until(machine, old, 99)
        harm(machine)
        await pass_until(machine, old, 99)
        held = machine.table is not None and machine.table.flow_rules is not None
        assert held is (harm is offloading)

        await pass_until(machine, new, cut)

        tables = {
            wish.guard.mark: guard_of(made)  # type: ignore[arg-type]
            for made, wish in ((before, old), (after, new))
            if wish.guard is not None
        }
        assert machine.table is not None
        assert not held or machine.table.flow_rules is not None
        standing = tables[machine.table.mark]
        for peer in PEERS:
            if Promise.of(before).encrypts(OWN, peer) and Promise.of(after).encrypts(OWN, peer):  # type: ignore[arg-type]
                assert standing.judges(OWN, peer)
                assert standing.judges(peer, OWN)
        # Enforced before and after, it never only counts; to enforce begins with the guard.
        if not new.optional and (cut or not old.optional):
            assert standing.enforce

    asyncio.run(scenario())


@settings(max_examples=examples(100), deadline=None)
@given(
    wishes,
    st.integers(-20, 20).map(lambda years: years * 365 * 86_400.0),
    st.builds(
        ClockFacts,
        *(st.none() | st.floats(0, 4e9) for _ in ("built", "rtc", "saved")),
        ours=st.booleans(),
    ),
)
def test_a_wrong_clock_takes_nothing_away(made: object, off: float, facts: ClockFacts) -> None:
    """Wherever the clock is set, nothing of what protects is touched; the time may be saved."""

    async def scenario() -> None:
        machine = FakeMachine(network("10.0.0.5"))
        machine.process = PROCESS
        wish = guarded(made)
        await pass_until(machine, wish, 99)
        await pass_until(machine, wish, 99)

        machine.clock, machine.clock_off = facts, off

        observed = await machine.observe()
        steps = plan(Drift(wish, observed))
        saves = worth_saving(observed.time, facts)
        assert steps == ((SaveTime(observed.time),) if saves else ())
        assert check_order(steps, wish) == ()

    asyncio.run(scenario())


def test_another_intermediate() -> None:
    """Certificates to send along are loaded anew though the key stays."""
    wish = desired(config(), HERE)
    assert wish.credentials is not None
    renewed = replace(wish, credentials=replace(wish.credentials, intermediates=(b"new",)))

    steps = plan(Drift(renewed, loaded_world(wish)))

    assert [type(step) for step in steps] == [LoadKey]


def test_before_the_vm_is_placed() -> None:
    """Only the guard is wanted then, and nothing is taken away, whatever stands."""
    wish = guarded(config())
    assert wish.guard is not None
    world = replace(loaded_world(wish), saved_guard=wish.guard.mark)
    standing = replace(world, guard=GuardTable("form", wish.guard.mark))

    assert plan(Drift(unplaced(config(), lowered=False), standing)) == ()
    (loading,) = plan(Drift(unplaced(config(), lowered=False), world))
    assert loading == LoadGuard(replace(wish.guard, exempt=()))
    unguarded = config(agent=AgentConfig(guard=GuardMode.NONE))
    assert plan(Drift(unplaced(unguarded, lowered=False), standing)) == ()
    assert plan(Drift(unplaced(config(), lowered=True), standing)) == (RemoveGuard(),)


def test_the_guard_goes_last() -> None:
    """Where no guard is wanted any more it goes after all else; a lowered one is still saved."""
    wish = guarded(config())
    assert wish.guard is not None
    table = GuardTable("form", wish.guard.mark)
    world = Observed(None, guard=table, saved_guard=wish.guard.mark)
    unguarded = replace(wish, guard=None)

    assert plan(Drift(unguarded, world)) == (StartCharon(), RemoveGuard(), SaveGuard(None))
    lowered = replace(unguarded, guard_lowered=True)
    assert plan(Drift(lowered, world)) == (StartCharon(), RemoveGuard())


def test_the_guard() -> None:
    """It is loaded where it lacks or is another, narrowed where the links differ, and saved."""
    wish = guarded(config())
    assert wish.guard is not None
    right = GuardTable("form", wish.guard.mark, wish.guard.exempt)
    saved = wish.guard.mark
    load, save = LoadGuard(wish.guard), SaveGuard(wish.guard)
    process = replace(PROCESS, stopped=True)
    charon = Charon(process, responsive=False)

    def first(table: GuardTable | None, kept: str) -> tuple[object, ...]:
        steps = plan(Drift(wish, Observed(charon, guard=table, saved_guard=kept)))
        assert steps[-1] == ContinueCharon(process)
        return steps[:-1]

    assert first(None, "") == (load, save)
    assert first(replace(right, mark=""), saved) == (load,)
    assert first(replace(right, exempt=(LinkId(99, "gone"),)), saved) == (
        ExemptLinks(wish.guard.exempt, wish.guard.overlay_ports, (LinkId(99, "gone"),)),
    )
    assert first(replace(right, overlay_ports=(4789,)), saved) == (
        ExemptLinks(wish.guard.exempt, instead=wish.guard.exempt),
    )
    assert first(right, "damaged") == (save,)
    assert first(right, saved) == ()


def test_flowtables() -> None:
    """What they forward is judged on the links that are, for as long as there is one."""
    made = guarded(config())
    assert made.guard is not None
    wish = replace(made, guard=replace(made.guard, exempt=(LinkId(3, "docker0"),)))
    assert wish.guard is not None
    links = tuple(
        Link(number, name, 1500, up=True, loopback=name == "lo")
        for number, name in enumerate(("lo", "eth0", "docker0", "eth0.5"), 1)
    )
    table = GuardTable("form", wish.guard.mark, wish.guard.exempt)

    def steps(desired: Desired, **more: Any) -> tuple[object, ...]:
        seen = Observed(
            network=NetworkFacts(links=links),
            guard=replace(table, **more),
            saved_guard=wish.guard.mark if wish.guard else "",
            unreadable=(("charon", KernelError("")),),
        )
        return plan(Drift(desired, seen))

    assert steps(wish) == ()
    (step,) = steps(wish, flowtables=("inet fast f",))
    assert isinstance(step, GuardFlows)
    assert 'egress devices = { "eth0", "eth0.5" } ' in step.text
    right = mark(step.text)
    assert steps(wish, flowtables=("inet fast f",), flow_rules=right) == ()
    assert steps(wish, flowtables=("inet fast f",), flow_rules="") == (step,)
    assert steps(wish, flow_rules=right) == (GuardFlows(""),)
    # While it is unclear where the VM stands, all links are.
    (unclear,) = steps(unplaced(config(), lowered=False), exempt=(), flowtables=("inet fast f",))
    assert isinstance(unclear, GuardFlows)
    assert '"docker0"' in unclear.text
    lowered = Desired(placed=False, guard_lowered=True)
    assert steps(lowered, flow_rules=right) == (GuardFlows(""), RemoveGuard())


def test_a_charon_that_answers_no_more() -> None:
    """It is replaced after two deadlines, after 50 s while it works, or without its socket."""
    wish = desired(config(), HERE)
    lost = replace(PROCESS, reachable=False)

    def steps(charon: Charon, age: float = 100.0) -> tuple[object, ...]:
        return plan(Drift(wish, Observed(charon, time=PROCESS.started + age)))

    assert steps(Charon(PROCESS, responsive=False)) == ()
    assert steps(Charon(PROCESS, responsive=False, missed=1, idle=1)) == ()
    (killing,) = steps(Charon(PROCESS, responsive=False, missed=2, idle=2))
    assert isinstance(killing, KillCharon)
    assert steps(Charon(PROCESS, responsive=False, missed=9, silent=49.0)) == ()
    assert len(steps(Charon(PROCESS, responsive=False, missed=10, silent=50.0))) == 1
    assert steps(Charon(lost, responsive=False), age=1.0) == ()
    (killing,) = steps(Charon(lost, responsive=False))
    assert killing == KillCharon(lost, "its VICI socket is gone")


def test_what_could_not_be_read() -> None:
    """About it nothing is planned; about the rest all is."""
    wish = guarded(config())
    assert wish.guard is not None
    error = KernelError("no answer")
    load, save = LoadGuard(wish.guard), SaveGuard(wish.guard)

    assert plan(Drift(wish, Observed(unreadable=(("guard", error),)))) == (StartCharon(),)
    for name in ("charon", "policies", "states"):
        assert plan(Drift(wish, Observed(unreadable=((name, error),)))) == (load, save)


@settings(max_examples=examples(100))
@given(wishes, wishes)
def test_converges(before: object, after: object) -> None:
    """From any state one plan leads to the wish, and then nothing is left to do."""

    async def scenario() -> None:
        machine = FakeMachine(network("10.0.0.5"))
        machine.process = PROCESS
        old, new = desired(before, HERE), desired(after, HERE)  # type: ignore[arg-type]
        await pass_until(machine, old, 99)
        await pass_until(machine, new, 99)
        seen = await machine.observe()
        # Two connections may share a selector that the fake's unload takes from both.
        await pass_until(machine, new, 99)

        assert plan(Drift(new, await machine.observe())) == ()
        assert {item.name for item in seen.charon.connections} == {  # type: ignore[union-attr]
            connection.name for connection in new.connections
        }

    asyncio.run(scenario())


def loaded_world(wish: Desired, **changes: object) -> Observed:
    """A world in which a wish has come true."""
    assert wish.credentials is not None
    charon = Charon(
        PROCESS,
        connections=tuple(
            LoadedConnection(item.name, fingerprint(item)) for item in wish.connections
        ),
        authorities=tuple(ca.name for ca in wish.credentials.authorities),
        keys=(wish.credentials.key_id,),
        credentials=credentials_mark(wish.credentials),
        **changes,  # type: ignore[arg-type]
    )
    states = tuple(
        SecurityAssociation(*ends, spi, child.reqid)
        for sa in charon.sas
        for child in sa.children
        for ends, spi in (
            ((sa.local, sa.remote), child.spi_out),
            ((sa.remote, sa.local), child.spi_in),
        )
    )
    policies = tuple(
        Policy(PolicySelector(direction, *ends), 367231, esp=True, blocks=False)
        for sa in charon.sas
        for child in sa.children
        for direction, ends in (
            (Direction.OUT, (child.local[0], child.remote[0])),
            (Direction.IN, (child.remote[0], child.local[0])),
        )
    )
    return Observed(
        charon,
        (*(installed(policy) for policy in wish.policies), *policies),
        states,
        network=network(str(OWN)),
        remembered=tuple(RememberedPeer(sa.remote, 0.0) for sa in charon.sas),
    )


def test_nothing_to_do() -> None:
    """A wish that has come true needs no step."""
    wish = desired(config(no_ipsec=("10.0.9.0/24",)), HERE)

    assert plan(Drift(wish, loaded_world(wish))) == ()
    assert Drift(wish, loaded_world(wish)).missing == ()


def test_no_charon() -> None:
    """Without charon the only step is to start it, and none where nothing is wanted."""
    assert plan(Drift(desired(config(), HERE), Observed())) == (StartCharon(),)
    assert plan(Drift(Desired(), Observed())) == ()


@given(wishes, st.sampled_from(Phase))
def test_a_drain_keeps_charon(config_: object, phase: Phase) -> None:
    """While it waits, all is repaired; once it ends charon, all but that: the guard comes first."""
    wish = guarded(config_)
    drain = Drain(1, 1, phase, 100.0, 130.0)
    usual = plan(Drift(wish, Observed()))
    hung = Observed(Charon(PROCESS, responsive=False, missed=2, idle=2))
    assert StartCharon() in usual

    drained = plan(Drift(wish, Observed(drain=drain)))

    if phase is Phase.WAITING:
        assert drained == usual
        assert plan(Drift(wish, replace(hung, drain=drain))) == plan(Drift(wish, hung))
    else:
        assert drained == tuple(step for step in usual if step != StartCharon())
        assert isinstance(drained[0], LoadGuard)
        assert not any(
            isinstance(step, KillCharon) for step in plan(Drift(wish, replace(hung, drain=drain)))
        )


def test_unresponsive() -> None:
    """A charon that does not answer is asked nothing."""
    wish = desired(config(), HERE)

    assert plan(Drift(wish, Observed(Charon(PROCESS, responsive=False)))) == ()


def test_shunts_are_loaded_first() -> None:
    """The operator's exceptions stand before the first trap."""
    wish = desired(config(no_ipsec=("10.0.9.0/24",)), HERE)

    loads = [
        step
        for step in plan(Drift(wish, Observed(Charon(PROCESS))))
        if type(step) is LoadConnection
    ]

    assert [step.connection.action for step in loads] == [Action.PASS, Action.ENCRYPT]


def test_fingerprint_lost() -> None:
    """A connection of which nobody knows what was loaded is loaded once more."""
    wish = desired(config(), HERE)
    world = loaded_world(wish)
    assert world.charon is not None
    forgotten = Observed(
        Charon(
            PROCESS,
            connections=(LoadedConnection("ipsec-10.0.0.0/16", ""),),
            authorities=world.charon.authorities,
            keys=world.charon.keys,
            credentials=world.charon.credentials,
        ),
        world.policies,
    )

    assert [str(step) for step in plan(Drift(wish, forgotten))] == ["load ipsec-10.0.0.0/16"]


def test_policy_taken_away() -> None:
    """One direction's policy gone: the child's policies are installed anew."""
    wish = desired(config(), HERE)
    world = loaded_world(wish)
    without_in = tuple(
        policy for policy in world.policies if policy.selector.direction is not Direction.IN
    )

    steps = plan(Drift(wish, Observed(world.charon, without_in)))

    assert steps == (
        ReinstallPolicies("ipsec-10.0.0.0/16", "ipsec-10.0.0.0/16-10.0.0.5", Action.ENCRYPT),
    )


def test_policy_blunted() -> None:
    """A trap that lost its ESP template is missing: it would let packets pass in clear."""
    wish = desired(config(), HERE)
    world = loaded_world(wish)
    blunt = tuple(
        Policy(policy.selector, policy.priority, esp=False, blocks=False)
        for policy in world.policies
    )

    assert len(Drift(wish, Observed(policies=blunt)).missing) == 2


def test_unwanted_connection() -> None:
    """A connection that nobody wants is unloaded, a shunt before a trap."""
    wish = desired(config(), HERE)
    world = loaded_world(wish)
    assert world.charon is not None
    more = Charon(
        PROCESS,
        connections=(
            *world.charon.connections,
            LoadedConnection("ipsec-10.7.0.0/16", "x"),
            LoadedConnection("no-ipsec-10.8.0.0/16", "x"),
        ),
        authorities=world.charon.authorities,
        keys=world.charon.keys,
        credentials=world.charon.credentials,
    )

    assert plan(Drift(wish, Observed(more, world.policies))) == (
        UnloadConnection("no-ipsec-10.8.0.0/16"),
        UnloadConnection("ipsec-10.7.0.0/16"),
    )


def sa_with(peer: str) -> IkeSa:
    """An IKE_SA with one CHILD_SA."""
    host = ip_address(peer)
    child = ChildSa(
        unique_id=1,
        name="x",
        state="INSTALLED",
        spi_in=1,
        spi_out=2,
        reqid=1,
        local=(ip_network(OWN),),
        remote=(ip_network(host),),
        bytes_in=0,
        bytes_out=0,
        packets_in=0,
        packets_out=0,
        age=1,
    )
    return IkeSa(7, "x", "ESTABLISHED", OWN, host, initiator=True, age=1, children=(child,))


def test_sa_of_a_removed_subnet() -> None:
    """An SA with a peer that no connection covers is ended; one with a covered peer stays."""
    wish = desired(config(), HERE)

    assert plan(Drift(wish, loaded_world(wish, sas=(sa_with("10.0.0.9"),)))) == ()
    steps = plan(Drift(wish, loaded_world(wish, sas=(sa_with("10.7.0.9"),))))
    assert [type(step) for step in steps] == [TerminateSa]


def test_sa_of_an_address_that_is_gone() -> None:
    """It stays: the address may come back, and no DELETE would reach the peer."""
    wish, gone = desired(config(), HERE), ip_address("10.7.0.5")
    sa = sa_with("10.7.0.9")
    child = replace(sa.children[0], local=(ip_network(gone),))
    stale = replace(sa, local=gone, children=(child,))

    assert plan(Drift(wish, loaded_world(wish, sas=(stale,)))) == ()


def test_foreign() -> None:
    """A CHILD_SA's own policies are no strangers; another program's are."""
    wish = desired(config(), HERE)
    own, peer = ip_network("10.0.0.5/32"), ip_network("10.0.0.9/32")
    of_sa = Policy(PolicySelector(Direction.OUT, own, peer), 367231, esp=True, blocks=False)
    strange = Policy(
        PolicySelector(Direction.OUT, own, ip_network("10.0.0.66/32")), 1, esp=False, blocks=False
    )
    world = loaded_world(wish, sas=(sa_with("10.0.0.9"),))

    found = Drift(wish, Observed(world.charon, (*world.policies, of_sa, strange))).foreign

    assert found == (strange,)


def test_orphans_of_a_killed_charon() -> None:
    """An earlier charon's PASS goes, another program's policy and a younger SA stay."""
    wish = desired(config(), HERE)
    anywhere, far = ip_network("0.0.0.0/0"), ip_network("10.0.9.0/24")
    left = Policy(
        PolicySelector(Direction.OUT, anywhere, far), 187711, esp=False, blocks=False, added=999
    )
    strange = Policy(
        PolicySelector(Direction.IN, far, anywhere), 5, esp=False, blocks=False, added=999
    )
    old = SecurityAssociation(OWN, ip_address("10.0.0.9"), spi=77, reqid=1, added=999)
    young = SecurityAssociation(OWN, ip_address("10.0.0.9"), spi=78, reqid=1, added=1001)
    world = loaded_world(wish)
    seen = Observed(world.charon, (*world.policies, left, strange), (old, young))

    assert plan(Drift(wish, seen)) == (DeletePolicy(left), DeleteState(old))
    assert Drift(wish, Observed(None, (), (old,))).orphan_states == ()
