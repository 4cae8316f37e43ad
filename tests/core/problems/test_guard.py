"""What the guard's table and its counters tell: who sends clear, and why we would."""

from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, GuardMode
from ipsec_agent.core.flow_rules import wanted_flow_rules
from ipsec_agent.core.guard_table import PEERS_COUNTED, mark
from ipsec_agent.core.model import Desired, Direction, LinkId, PolicySelector
from ipsec_agent.core.observed import Link, Observed, Policy
from ipsec_agent.core.observed_guard import ClearLink, ClearPeer, GuardTable
from ipsec_agent.core.problems.guard import RECENT, RECENT_FLOW, GuardState, guard_state
from ipsec_agent.core.problems.problem import Problem, Severity
from tests.configs import config
from tests.vm import CHARON, NOW, Vm, healthy_vm

VM = healthy_vm()


def peer(address: str, packets: int = 3, idle: int = 0) -> ClearPeer:
    """An address that the guard counts."""
    return ClearPeer(ip_address(address), packets, packets * 100, idle)


def prevented(vm: Vm, address: str = "10.0.0.9", idle: int = 0) -> list[Problem]:
    """What is said of clear packets to an address that go on for 30 s."""
    vm = vm.table(clear_out=(peer(address, idle=idle),))
    first = vm.assess()
    found = vm.but(time=NOW + 30).assess(first.memory).problems
    return [it for it in found if it.code == "clear-prevented"]


def state(vm: Vm, *, lowered: bool = False) -> GuardState:
    """The guard's state."""
    return guard_state(vm.config, vm.desired, vm.observed, lowered=lowered)


def test_states() -> None:
    """The five words of the status."""
    unguarded = healthy_vm(config(agent=AgentConfig(guard=GuardMode.NONE)))

    assert state(VM) is GuardState.UP
    assert state(VM.but(guard=None)) is GuardState.MISSING
    assert state(VM.table(mark="")) is GuardState.ALTERED
    assert state(VM, lowered=True) is GuardState.LOWERED
    assert state(unguarded) is GuardState.NONE


def test_exempt_links() -> None:
    """To judge a link too many is no weakness, to judge one too few is."""
    assert VM.desired.guard is not None
    docker0, veth1 = LinkId(3, "docker0"), LinkId(9, "veth1")
    assert VM.desired.guard.exempt == (docker0, veth1)
    assert state(VM.table(exempt=(docker0,))) is GuardState.UP
    assert state(VM.table(exempt=(docker0, LinkId(4, "eth1"), veth1))) is GuardState.ALTERED
    desired = replace(VM.desired, guard=replace(VM.desired.guard, overlay_ports=(4789,)))
    assert state(replace(VM, desired=desired)) is GuardState.ALTERED
    further = VM.table(exempt=(docker0,))
    assert state(replace(further, desired=desired)) is GuardState.UP, "its turn comes"


def test_before_the_wish_is_known() -> None:
    """Where it is not known yet what should stand, a table of ours does, and no other."""
    ours, strange = (Observed(guard=GuardTable("form", mark=mark)) for mark in ("mark", ""))

    assert guard_state(VM.config, Desired(), ours, lowered=False) is GuardState.UP
    assert guard_state(VM.config, Desired(), strange, lowered=False) is GuardState.ALTERED


def test_received() -> None:
    """Peers that send clear are one problem, the busiest named first, at once."""
    table = VM.table(
        clear_in=(peer("10.0.0.7", 12), *(peer(f"10.0.1.{last}") for last in range(1, 5)))
    )

    found = table.problems()["clear-received"]

    assert found.severity is Severity.WARNING
    assert found.message == (
        "10.0.0.7 (12 packets), 10.0.1.1 (3 packets), 10.0.1.2 (3 packets) and 2 more"
        " send clear packets to this VM; the guard dropped them"
    )
    assert VM.table(clear_in=(peer("10.0.0.7"),)).problems()["clear-received"].message == (
        "10.0.0.7 (3 packets) sends clear packets to this VM; the guard dropped them"
    )


@pytest.mark.parametrize(
    ("counter", "code", "recent"),
    [
        ("clear_in", "clear-received", RECENT),
        ("untranslated", "nat-bypassed", RECENT_FLOW),
    ],
)
def test_recent(counter: str, code: str, recent: int) -> None:
    """What ended a while ago is still counted, and no problem any more."""
    assert code in VM.table(**{counter: (peer("172.31.0.2", idle=recent - 1),)}).problems()
    assert code not in VM.table(**{counter: (peer("172.31.0.2", idle=recent),)}).problems()


def test_burst_is_no_problem() -> None:
    """What a repair of a few seconds made the guard catch is shown by the counters only."""
    memory = VM.assess().memory
    shown: list[str] = []
    for seconds in range(0, 60, 5):
        idle = max(seconds - 4, 0)
        vm = VM.table(clear_out=(peer("10.0.0.9", idle=idle),)).but(time=NOW + seconds)
        assessment = vm.assess(memory)
        memory = assessment.memory
        shown += [it.code for it in assessment.problems]

    assert shown == []


def test_because_of_charon() -> None:
    """Without a charon, or with one that hangs, that is why."""
    (down,) = prevented(VM.but(charon=None))
    (hung,) = prevented(VM.but(charon=replace(CHARON, responsive=False, missed=1, idle=1)))

    assert down.message == (
        "the guard dropped clear packets to 10.0.0.9 (3 packets): charon is not running"
    )
    assert "charon does not answer" in hung.message


def test_because_of_a_trap() -> None:
    """A trap that is missing is named; one for other peers is no reason."""
    vm = healthy_vm(config(("10.0.0.0/24", "10.0.1.0/24")))
    vm = vm.but(
        policies=tuple(
            policy
            for policy in vm.observed.policies
            if ip_network("10.0.0.0/24")
            not in (policy.selector.source, policy.selector.destination)
        )
    )

    (near,) = prevented(vm, "10.0.0.9")
    (far,) = prevented(vm, "10.0.1.9")

    assert "the kernel lacks the policy of ipsec-10.0.0.0/24" in near.message
    assert "their source address is not this VM's" in far.message


def test_because_of_a_foreign_policy() -> None:
    """A policy that is not ours and lets it through is the reason."""
    selector = PolicySelector(Direction.OUT, ip_network("0.0.0.0/0"), ip_network("10.0.0.9/32"))
    strange = Policy(selector, 1, esp=False, blocks=False)

    (found,) = prevented(VM.but(policies=(*VM.observed.policies, strange)))

    assert "a foreign policy lets them through" in found.message


def test_because_of_no_connection() -> None:
    """Where no connection leads, there is no trap."""
    (found,) = prevented(healthy_vm(config(("10.0.0.0/24", "fd00::/64"))), "fd00::9")

    assert "no connection covers that address" in found.message


def test_broadcast_is_no_peer() -> None:
    """What goes to a broadcast address is dropped, and means nobody."""
    assert prevented(VM, "10.0.0.255") == []
    assert len(prevented(VM, "10.0.1.255")) == 1


def test_one_problem_for_each_cause() -> None:
    """A thousand peers behind one cause are one problem."""
    peers = tuple(peer(f"10.0.{n // 250}.{n % 250 + 1}") for n in range(1000))
    vm = VM.but(charon=None).table(clear_out=peers)
    first = vm.assess()

    found = vm.but(time=NOW + 30).assess(first.memory).problems

    assert [it.code for it in found] == ["charon-down", "clear-prevented"]
    assert "and 997 more" in found[1].message


def test_misplaced() -> None:
    """Who sends from an address that its link does not have is named by it, after a moment."""
    vm = VM.table(misplaced=(peer("172.17.0.1", 7),))
    first = vm.assess()
    (found,) = vm.but(time=NOW + 30).assess(first.memory).problems

    assert first.problems == ()
    assert (found.code, found.severity) == ("source-not-on-link", Severity.WARNING)
    assert "from 172.17.0.1 (7 packets), which their outgoing link" in found.message
    assert VM.table(misplaced=(peer("172.17.0.1", idle=RECENT),)).assess().memory.seen == ()


def test_untranslated() -> None:
    """Containers that leave untranslated are reported with their counts."""
    found = VM.table(untranslated=(peer("172.31.0.2", 7),)).problems()["nat-bypassed"]

    assert found.message.startswith("packets from 172.31.0.2 (7 packets) leave")


def test_a_vm_that_speaks_clear() -> None:
    """A VM in no list speaks clear by its role: its own address is no container's."""
    vm = healthy_vm(config(no_ipsec=("10.0.0.5/32",)))

    found = vm.table(untranslated=(peer("10.0.0.5"), peer("172.31.0.2"))).problems()

    assert "10.0.0.5" not in found["nat-bypassed"].message
    assert vm.table(untranslated=(peer("10.0.0.5"),)).problems() == {}


@pytest.mark.parametrize(
    ("link", "severity"),
    [("docker0", Severity.INFO), ("eth1", Severity.WARNING), ("9", Severity.WARNING)],
)
def test_link_not_judged(link: str, severity: Severity) -> None:
    """A network card that carries clear is a warning with the line to write; a bridge may."""
    found = VM.table(unguarded=(ClearLink(link, 5, 500, 0),)).problems()["link-not-guarded"]

    assert found.severity is severity
    assert found.message.startswith(
        f"5 packets between encrypted addresses went in clear over {link}"
    )
    assert f"write agent.uplinks: [{link}]" in found.hint
    assert "agent.inside" not in found.hint
    assert VM.table(unguarded=(ClearLink(link, 5, 500, RECENT_FLOW),)).problems() == {}


def test_link_that_the_config_leaves_out() -> None:
    """A link in agent.inside cannot be in agent.uplinks, too."""
    vm = healthy_vm(config(agent=AgentConfig(inside=("eth1",))))
    found = vm.table(unguarded=(ClearLink("eth1", 5, 500, 0),)).problems()["link-not-guarded"]

    assert found.hint.endswith("[eth1] and remove it from agent.inside")


def test_a_link_that_cannot_be_filtered() -> None:
    """The table beside flowtables is not on a link that nft cannot name: the VM is not healthy."""
    links = (Link(77, 'a"b', 1500, up=True), *VM.observed.network.links)
    vm = VM.but(network=replace(VM.observed.network, links=links))
    text = wanted_flow_rules(vm.desired.guard, ("inet fast f",), links)
    found = vm.table(flowtables=("inet fast f",), flow_rules=mark(text)).problems()

    assert 'a"b' not in text
    assert found["flows-offloaded"].severity is Severity.CRITICAL
    assert found["flows-offloaded"].hint.endswith('; nft cannot filter a"b: give it another name')


def test_flowtables() -> None:
    """A flowtable makes the VM unhealthy at once, with the command that ends it."""
    found = VM.table(flowtables=("inet fast f",)).problems()["flows-offloaded"]

    assert found.severity is Severity.CRITICAL
    assert "flowtable inet fast f forwards connections" in found.message
    assert "nft delete flowtable inet fast f" in found.hint
    assert "may leave in clear" in found.message

    text = wanted_flow_rules(VM.desired.guard, ("inet fast f",), VM.observed.network.links)
    assert text
    for rules, severity in ((mark(text), Severity.WARNING), ("", Severity.CRITICAL)):
        vm = VM.table(flowtables=("inet fast f",), flow_rules=rules, offloaded=7)
        found = vm.problems()["flows-offloaded"]
        assert found.severity is severity
        assert ("drops the clear ones (7 packets so far)" in found.message) is bool(rules)


def test_counters_full() -> None:
    """A full set names no further peers, which is said; each IP version has a set of its own."""
    four = tuple(peer(str(ip_address(2**24 + n)), idle=99) for n in range(PEERS_COUNTED))
    six = tuple(peer(str(ip_address(2**100 + n)), idle=99) for n in range(PEERS_COUNTED))

    full = VM.table(clear_out=four).problems()["guard-counters-full"]

    assert full.severity is Severity.INFO
    assert "clear_out" in full.message
    assert VM.table(clear_out=four[1:] + six[1:]).problems() == {}
