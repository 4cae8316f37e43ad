"""What is wrong with a VM: named, explained, and never called healthy where clear may pass."""

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.config import GuardMode
from ipsec_agent.core.drain import Drain, Phase
from ipsec_agent.core.health import Assessment, Memory
from ipsec_agent.core.inside import Inside
from ipsec_agent.core.lockout import Finding
from ipsec_agent.core.model import Direction, LinkId, Narrowing, PolicySelector
from ipsec_agent.core.observed import Charon, Link, Policy, SecurityAssociation
from ipsec_agent.core.problems.problem import LogLine, Problem, Severity, healthy
from ipsec_agent.errors import KernelError
from tests.configs import FACTS, config
from tests.vm import CHARON, NETWORK, NOW, OWN, PEER, Vm, healthy_vm, with_sa

VM = healthy_vm()
CRITICAL, ERROR, WARNING, INFO = (
    Severity.CRITICAL,
    Severity.ERROR,
    Severity.WARNING,
    Severity.INFO,
)


def foreign(source: str, destination: str, *, esp: bool = False, blocks: bool = False) -> Policy:
    """A policy that nobody here wanted."""
    selector = PolicySelector(Direction.OUT, ip_network(source), ip_network(destination))
    return Policy(selector, 1, esp=esp, blocks=blocks)


def line(code: str, *, peer: str = str(PEER), ago: float = 10) -> LogLine:
    """A line of charon's log."""
    return LogLine(code, "it did not work", peer, "look", NOW - ago)


def test_healthy() -> None:
    """A VM that is as its config wants it has no problem."""
    assert VM.assess().problems == ()


def test_charon_down() -> None:
    """No charon is CRITICAL at once."""
    assert VM.but(charon=None).problems()["charon-down"].severity is CRITICAL


def test_charon_that_a_drain_has_ended() -> None:
    """It is told who has ended it, and no other is promised; unlike while the drain waits."""
    drain = Drain(1, 1, Phase.ENDED, NOW - 9, NOW)
    ended, waits = (
        VM.but(charon=None, drain=one).problems()["charon-down"]
        for one in (drain, replace(drain, phase=Phase.WAITING))
    )
    assert ended.severity is waits.severity is CRITICAL
    assert ended.message == "charon is not running: `ipsec-agent drain` has ended it"
    assert "restarts" not in ended.hint
    assert "restarts" in waits.hint


@pytest.mark.parametrize(
    ("charon", "severity", "says"),
    [
        (replace(CHARON, missed=1, idle=1), CRITICAL, "hung: 1 request timed out"),
        (
            replace(CHARON, process=replace(CHARON.process, stopped=True)),
            CRITICAL,
            "a signal stopped it",
        ),
        (
            replace(CHARON, process=replace(CHARON.process, reachable=False)),
            CRITICAL,
            "its socket is gone",
        ),
    ],
)
def test_unresponsive(charon: Charon, severity: Severity, says: str) -> None:
    """Why charon does not answer is said, and is CRITICAL."""
    found = VM.but(charon=replace(charon, responsive=False)).problems()

    assert found["charon-unresponsive"].severity is severity
    assert says in found["charon-unresponsive"].message


def test_starting() -> None:
    """While the first answer is awaited nothing is shown for 5 s, and a warning then."""
    starting = VM.but(charon=replace(CHARON, responsive=False))
    first = starting.assess()
    later = starting.but(time=NOW + 6).assess(first.memory)

    assert first.problems == ()
    assert [(it.code, it.severity) for it in later.problems] == [("charon-unresponsive", WARNING)]


def test_policies_missing() -> None:
    """It says how many, and of which connections."""
    found = VM.but(policies=()).problems()["policies-missing"]

    assert found.severity is CRITICAL
    assert found.message == (
        "the kernel lacks 5 of 5 policies (ipsec-10.0.0.0/16, no-ipsec-broadcast)"
    )


def test_bypass() -> None:
    """A foreign policy that lets pass in clear what a trap selects is an ERROR at once."""
    vm = VM.but(policies=(*VM.observed.policies, foreign("0.0.0.0/0", "10.0.0.9/32")))

    found = vm.problems()["policies-bypassed"]
    assert found.severity is ERROR
    assert "1 foreign policy that lets packets bypass IPsec" in found.message


def test_a_bypass_for_some_packets() -> None:
    """One that a mark narrows is named with it, replaces no trap, and is nobody's to be removed."""
    marked = replace(foreign("0.0.0.0/0", "10.0.0.9/32"), narrowed=Narrowing(1, 0xFF))
    traps = tuple(
        replace(policy, narrowed=Narrowing(interface=5)) for policy in VM.observed.policies
    )

    found = VM.but(policies=(*VM.observed.policies, marked)).problems()["policies-bypassed"]
    assert found.severity is ERROR
    assert "(out, mark 0x1/0xff)" in found.message
    assert "dir out mark 0x1 mask 0xff`" in found.hint
    assert "policies-missing" in VM.but(policies=traps).problems()


def test_how_a_policy_is_deleted() -> None:
    """ip deletes it only with all that makes up its identity, by name of its link."""
    bound = replace(foreign("0.0.0.0/0", "10.0.0.9/32"), narrowed=Narrowing(interface=5, link=7))
    bound = replace(bound, selector=replace(bound.selector, protocol=17, destination_port=53))
    network = replace(NETWORK, links=(*NETWORK.links, Link(7, "eth7", 1500, up=True)))
    policies = (*VM.observed.policies, bound)

    found = VM.but(policies=policies, network=network).problems()["policies-bypassed"]

    assert (
        "`ip xfrm policy delete src 0.0.0.0/0 dst 10.0.0.9/32 dev eth7 proto 17 dport 53 dir out"
        " if_id 5`"
    ) in found.hint


def test_a_route_based_vpn_lives() -> None:
    """What only packets of its own interface meet, and no trap selects, is no problem."""
    vpn = replace(foreign("192.0.2.0/24", "198.51.100.0/24"), narrowed=Narrowing(interface=5))

    assert VM.but(policies=(*VM.observed.policies, vpn)).problems() == VM.problems()


@pytest.mark.parametrize(
    "policy",
    [
        foreign("0.0.0.0/0", "192.0.2.0/24"),
        foreign("0.0.0.0/0", "10.0.0.9/32", blocks=True),
        foreign("10.0.0.5/32", "10.0.0.9/32", esp=True),
        foreign("::/0", "::/0"),
    ],
)
def test_foreign(policy: Policy) -> None:
    """Other foreign policies are a warning, once they have stood for 30 s."""
    vm = VM.but(policies=(*VM.observed.policies, policy))
    first = vm.assess()
    later = vm.but(time=NOW + 31).assess(first.memory)

    assert first.problems == ()
    assert [it.code for it in later.problems] == ["policies-foreign"]


def test_network() -> None:
    """An uplink that is down, and an address that is gone."""
    down = replace(
        NETWORK, links=tuple(replace(link, up=link.index != 2) for link in NETWORK.links)
    )
    gone = replace(VM, placement=replace(VM.placement, present=False))

    assert healthy_vm(network=down).problems()["link-down"].message == "the uplink eth0 is down"
    assert gone.problems()["address-missing"].severity is ERROR


def test_an_address_on_a_link_of_containers() -> None:
    """The link is named, and what to write if it is none of theirs."""
    (eth0,) = [link for link in NETWORK.links if link.name == "eth0"]
    aside = replace(
        VM.placement, present=False, inside=(Inside(eth0, "its far end is a container's"),)
    )

    found = replace(VM, placement=aside).problems()["address-missing"]

    assert found.message == (
        f"this VM's address {OWN} is on eth0, which is not guarded: its far end is a container's"
    )
    assert "agent.uplinks: [eth0]" in found.hint


def test_mtu() -> None:
    """A container's link with packets too large for ESP, once it has stood for 10 s: the numbers
    and the command; with UDP encapsulation less fits."""
    links = (link for link in NETWORK.links if link.name in {"eth0", "docker0"})
    large = replace(NETWORK, links=tuple(replace(link, mtu=1460) for link in links))
    network = replace(large, links=(replace(large.links[0], mtu=1500), *large.links[1:]))
    vm = healthy_vm(config(force_udp_encapsulation=True), network)
    first = vm.assess()

    (found,) = vm.but(time=NOW + 10).assess(first.memory).problems

    assert first.problems == ()
    assert (found.code, found.severity, found.subject) == ("mtu-too-large", INFO, "docker0")
    assert found.message == (
        "docker0 has MTU 1460, but only packets of up to 1458 bytes fit into ESP on eth0 (MTU 1500)"
    )
    assert found.hint.startswith("run `ip link set dev docker0 mtu 1458`")
    assert healthy_vm(network=network).assess().memory.seen == ()
    clear = healthy_vm(config(no_ipsec=("10.0.0.5/32",), force_udp_encapsulation=True), network)
    assert clear.assess().memory.seen == ()


@pytest.mark.parametrize(
    ("name", "code", "severity"),
    [
        ("policies", "unreadable", ERROR),
        ("guard", "guard-missing", CRITICAL),
        ("states", "unreadable", ERROR),
        ("charon", "unreadable", ERROR),
        ("network", "unreadable", ERROR),
        ("remembered", "unreadable", ERROR),
        ("counters", "unreadable", INFO),
    ],
)
def test_unreadable(name: str, code: str, severity: Severity) -> None:
    """What cannot be read is one problem with the reader's own words and hint."""
    error = KernelError("no such thing", code=2, hint="install it")
    empty = None if name in {"charon", "guard"} else ()
    vm = VM.but(unreadable=((name, error),))
    if name != "network":
        vm = vm.but(**{name: empty})

    first = vm.assess()
    found = vm.but(time=NOW + 6).assess(first.memory).problems

    assert [(it.code, it.severity) for it in found] == [(code, severity)]
    assert "no such thing" in found[0].message
    assert found[0].hint == "install it"
    # One reading that is late on a busy machine says nothing; without a guard a VM is never well.
    assert first.problems == (found if name == "guard" else ())


@pytest.mark.parametrize(
    ("days", "code", "severity"),
    [
        (31, None, None),
        (29, "certificate-expires", INFO),
        (13, "certificate-expires", WARNING),
        (6, "certificate-expires", ERROR),
        (2, "certificate-expires", CRITICAL),
        (-1, "certificate-expired", CRITICAL),
    ],
)
def test_certificates(days: int, code: str | None, severity: Severity | None) -> None:
    """The complaint grows louder as the end comes near."""
    end = datetime.fromtimestamp(NOW, UTC) + timedelta(days=days)
    vm = healthy_vm(config(facts=replace(FACTS, not_after=end)))

    found = [(it.code, it.severity) for it in vm.assess().problems]

    assert found == ([(code, severity)] if code else [])


def test_advice() -> None:
    """A gateway inside the encrypted set is a warning with the line to add; the VM is healthy."""
    finding = Finding(PEER, ("default gateway",), False, "the gateway is inside", "- 10.0.0.9/32")

    shown = VM.assess(lockouts=(finding,)).problems

    assert [(it.code, it.severity, it.hint) for it in shown] == [
        ("lockout-risk", WARNING, "add the line `- 10.0.0.9/32` below no_ipsec_subnets")
    ]
    assert healthy(shown)
    assert with_sa(VM).assess(lockouts=(finding,)).problems == ()


def played(*vms: Vm) -> Assessment:
    """The last of several passes, each of which hands on its memory."""
    assessment = vms[0].assess()
    for vm in vms[1:]:
        assessment = vm.assess(assessment.memory)
    return assessment


def test_counters_rise() -> None:
    """A counter that rises for long is a problem; one burst is none."""

    def passes(count: Callable[[int], int]) -> list[Vm]:
        return [
            VM.but(time=NOW + seconds, counters=(("XfrmInNoStates", count(seconds)),))
            for seconds in range(0, 100, 10)
        ]

    rising = played(*passes(lambda seconds: 20 * seconds))
    burst = played(*passes(lambda seconds: min(20 * seconds, 200)))

    assert [it.code for it in rising.problems] == ["xfrm-in-no-states"]
    assert burst.problems == ()


def test_one_way() -> None:
    """Packets that only go out are an information, judged from pass to pass."""

    def vm(seconds: int) -> Vm:
        out = SecurityAssociation(OWN, PEER, 7, 1, packets=seconds + 1)
        back = SecurityAssociation(PEER, OWN, 8, 1)
        return VM.but(time=NOW + seconds, states=(out, back))

    last = played(vm(0), vm(10), vm(20))

    assert [(it.code, it.severity) for it in last.problems] == [("peer-one-way", INFO)]
    assert [peer.one_way for peer in last.peers] == ["out"]


def test_unread_states_forget_nothing() -> None:
    """A pass that could not read the SAs leaves the peers' traffic as it was."""
    states = (SecurityAssociation(PEER, OWN, 8, 1, packets=5),)
    before = VM.but(states=states).assess()
    error = KernelError("busy", code=16)

    after = VM.but(unreadable=(("states", error),), time=NOW + 5).assess(before.memory)

    assert after.memory.followed == before.memory.followed


def test_log_line() -> None:
    """A line of charon's log that names a peer is a problem with its hint."""
    found = VM.problems(lines=(line("peer-refuses-us"),))["peer-refuses-us"]

    assert found.message == (
        "10.0.0.9 refuses this VM's certificate or signature (charon: it did not work)"
    )
    assert found.hint == "look"


def test_line_is_over() -> None:
    """A line is over once a younger SA stands with that peer, and only then."""
    lines = (line("peer-refuses-us", ago=10),)

    def codes(vm: Vm, since: float = 5) -> set[str]:
        state = SecurityAssociation(PEER, OWN, 8, 1, added=int(NOW - since))
        return vm.but(states=(state,)).problems(lines=lines).keys() - {"peer-one-way"}

    assert codes(with_sa(VM), since=20) == {"peer-refuses-us"}
    assert codes(with_sa(VM, "10.0.0.66")) == {"peer-refuses-us"}
    assert codes(with_sa(VM, state="REKEYED")) == {"peer-refuses-us"}
    # charon counts its age from the beginning of the negotiation, before the line.
    assert codes(with_sa(VM, age=15)) == set()


def test_a_silent_peer_that_another_negotiation_reached() -> None:
    """Both VMs began at once: the attempt that lost gives up when the other's SA is there."""
    lines = (line("peer-silent", ago=5),)
    older = SecurityAssociation(PEER, OWN, 8, 1, added=int(NOW - 20))

    def codes(vm: Vm) -> set[str]:
        first = vm.but(states=(older,)).assess(lines=lines)
        later = vm.but(states=(older,), time=NOW + 60).assess(first.memory, lines=lines)
        return {it.code for it in later.problems} - {"peer-one-way"}

    assert codes(with_sa(VM)) == set()
    assert codes(with_sa(VM, "10.0.0.66")) == {"peer-silent"}
    assert codes(with_sa(VM, state="DELETING")) == {"peer-silent"}
    assert codes(VM) == {"peer-silent"}


def test_line_that_was_overtaken() -> None:
    """With an SA there, what an attempt that crossed its own said is over unless said again."""
    vm = with_sa(VM, age=100)
    lines = (line("peer-refuses-us", ago=19),)

    assert "peer-refuses-us" in vm.problems(lines=lines)
    assert "peer-refuses-us" not in vm.problems(lines=(line("peer-refuses-us", ago=21),))
    assert "peer-refuses-us" in vm.problems(lines=(line("peer-refuses-us", ago=21), *lines))
    assert "peer-refuses-us" in VM.problems(lines=(line("peer-refuses-us", ago=100),))


def test_line_of_a_peer_that_starts() -> None:
    """A charon without connections refuses as one without common proposals: for a moment only."""
    said = replace(line("proposals-differ"), text="received NO_PROPOSAL_CHOSEN notify error")
    soon, later = replace(said, time=NOW - 6), replace(said, time=NOW - 4)
    other = replace(later, peer="10.0.0.77")

    assert VM.problems(lines=(said,)) == {}
    assert VM.problems(lines=(said, soon)) == {}
    assert VM.problems(lines=(said, other)) == {}
    assert "proposals-differ" in VM.problems(lines=(said, soon, later))
    certain = replace(said, text="received NO_PROPOSAL_CHOSEN notify, no CHILD_SA built")
    assert "proposals-differ" in VM.problems(lines=(certain,))


def test_line_of_a_trap() -> None:
    """That a trap was not installed is over once the kernel has every policy."""
    lines = (line("trap-not-installed", peer=""),)

    assert VM.problems(lines=lines) == {}
    assert "trap-not-installed" in VM.but(policies=()).problems(lines=lines)


def test_line_of_the_key() -> None:
    """That the key was not found is over once charon has it."""
    lines = (line("own-key-missing"),)

    found = VM.problems(lines=(*lines, replace(lines[0], peer="10.0.0.8")))["own-key-missing"]
    assert (found.subject, found.message) == (
        "",
        f"charon has no private key for this VM's certificate (charon: {lines[0].text})",
    )
    assert VM.but(charon=replace(CHARON, keys=("aa",))).problems(lines=lines) == {}


def test_effect_is_hidden() -> None:
    """While charon is down, a silent peer is not shown; it is when charon is back."""
    lines = (line("peer-silent", ago=0),)
    down = VM.but(charon=None)
    first = down.assess(lines=lines)
    second = down.but(time=NOW + 31).assess(first.memory, lines=lines)
    third = VM.but(time=NOW + 32).assess(second.memory, lines=lines)

    assert [it.code for it in second.problems] == ["charon-down"]
    assert [(it.code, it.since) for it in third.problems] == [("peer-silent", NOW)]


# --- never healthy while packets may be in clear -----------------------------------------------


def lose_a_policy(vm: Vm, number: int) -> Vm:
    """One of our policies is gone."""
    policies = list(vm.observed.policies)
    del policies[number % len(policies)]
    return vm.but(policies=tuple(policies))


def weaken_a_policy(vm: Vm, number: int) -> Vm:
    """One of our traps no longer requires ESP, or is a block."""
    traps = [n for n, policy in enumerate(vm.observed.policies) if policy.esp]
    policies = list(vm.observed.policies)
    chosen = traps[number % len(traps)]
    policies[chosen] = replace(policies[chosen], esp=False)
    return vm.but(policies=tuple(policies))


def lose_the_guard(vm: Vm, _number: int) -> Vm:
    """`nft flush ruleset`."""
    return vm.but(guard=None)


def alter_the_guard(vm: Vm, number: int) -> Vm:
    """A rule was changed, or it is another config's table."""
    return vm.table(mark=("", "of another text")[number % 2])


def exempt_the_uplink(vm: Vm, _number: int) -> Vm:
    """The guard no longer judges the uplink."""
    others = vm.desired.guard.exempt if vm.desired.guard else ()
    return vm.table(exempt=(LinkId(2, "eth0"), *others))


def nothing(vm: Vm, _number: int) -> Vm:
    """No harm."""
    return vm


HARMS: tuple[tuple[Callable[[Vm, int], Vm], str], ...] = (
    (lose_a_policy, "policies-missing"),
    (weaken_a_policy, "policies-missing"),
    (lose_the_guard, "guard-missing"),
    (alter_the_guard, "guard-altered"),
    (exempt_the_uplink, "guard-altered"),
)
CODES = ("charon-down", "peer-silent", "certificate-expired", "failed", "xfrm-in-no-states")
others = st.lists(
    st.builds(
        Problem, st.sampled_from(CODES), st.sampled_from(Severity), st.just("m"), st.just("h")
    ),
    max_size=4,
).map(tuple)
histories = st.lists(
    st.tuples(
        st.floats(0, 100),
        st.sampled_from([*HARMS, (nothing, "")]),
        st.integers(0, 9),
        others,
        st.booleans(),
    ),
    min_size=1,
    max_size=8,
)
WISHES = (
    healthy_vm(),
    healthy_vm(config(("10.0.0.0/16", "10.1.0.0/16"), ("10.0.9.0/24",))),
)


@given(histories, st.sampled_from(WISHES))
def test_never_healthy_in_clear(
    history: list[
        tuple[float, tuple[Callable[[Vm, int], Vm], str], int, tuple[Problem, ...], bool]
    ],
    vm: Vm,
) -> None:
    """Whatever was before and whatever else is wrong: a policy or the guard that is missing,
    altered or lowered is shown as CRITICAL in that very pass, and the VM is not healthy."""
    memory, now = Memory(), NOW
    for gap, (harm, code), number, failures, lowered in history:
        now += gap
        harmed = harm(vm, number).but(time=now)
        assessment = harmed.assess(memory, failures=failures, lowered=lowered)
        memory = assessment.memory
        shown = {it.code: it.severity for it in assessment.problems}

        if lowered and not code.startswith("policies"):
            code = "guard-lowered"  # noqa: PLW2901 - it says more than that the table is gone
        if code:
            assert shown[code] is CRITICAL
            assert not healthy(assessment.problems)


def test_unguarded_is_not_healthy() -> None:
    """agent.guard: none is a problem for as long as it stands."""
    settings = config()
    settings = replace(settings, agent=replace(settings.agent, guard=GuardMode.NONE))

    found = healthy_vm(settings).assess().problems

    assert [(it.code, it.severity) for it in found] == [("guard-none", WARNING)]
    assert not healthy(found)
