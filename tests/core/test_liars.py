"""Peers that lie: what is no SA between two hosts ends, and nothing else does."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.liars import Lie, lies, met
from ipsec_agent.core.model import Direction, Network, PolicySelector
from ipsec_agent.core.observed import (
    Charon,
    ChildSa,
    IkeSa,
    Observed,
    Policy,
    SecurityAssociation,
)
from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.plan import plan
from ipsec_agent.core.problems.liars import RECENT, liar_problems, remembered
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.steps import (
    DeletePolicy,
    ReinstallPolicies,
    TerminateChild,
    TerminateSa,
)
from tests.configs import config
from tests.core.test_orphans import BORN, OTHER, OWN, PEER, PROCESS, child_sa, ike_sa
from tests.fakes import installed
from tests.vm import NOW, healthy_vm

WISH = desired(config(), Placement(OWN, (OWN,)))
VM = healthy_vm()
WHOLE = ip_network("10.0.0.0/16")
TRAPPED = tuple(installed(policy) for policy in WISH.policies)


def seen(*sas: IkeSa, **more: object) -> Observed:
    """A pass in which charon has these, all of them known to the kernel."""
    states = tuple(
        SecurityAssociation(one, other, spi, 1, added=int(BORN) + 1)
        for sa in sas
        for child in sa.children
        for one, other, spi in (
            (sa.local, sa.remote, child.spi_out),
            (sa.remote, sa.local, child.spi_in),
        )
    )
    policies = tuple(
        Policy(PolicySelector(direction, ip_network(one), ip_network(other)), 9, True, False)
        for sa in sas
        for direction, one, other in (
            (Direction.OUT, sa.local, sa.remote),
            (Direction.IN, sa.remote, sa.local),
        )
    )
    return replace(
        Observed(charon=Charon(PROCESS, sas=sas), policies=TRAPPED + policies, states=states),
        **more,
    )


HONEST = child_sa(1, 100, age=1)
FALSE = {
    "a tunnel": replace(HONEST, transport=False),
    "a tunnel for a subnet": replace(HONEST, transport=False, remote=(WHOLE,)),
    "another's address": replace(HONEST, remote=(ip_network(OTHER),)),
    "another's address, too": replace(HONEST, remote=(ip_network(PEER), ip_network(OTHER))),
    "another own address": replace(HONEST, local=(ip_network("10.0.0.6/32"),)),
    "no address": replace(HONEST, remote=()),
    "a port": replace(HONEST, restricted=True),
}


@pytest.mark.parametrize("child", FALSE.values(), ids=FALSE)
def test_whatever_is_not_between_two_hosts_is_ended_at_once(child: ChildSa) -> None:
    """With its IKE_SA, and whichever of its states it is in."""
    for state in ("INSTALLED", "UPDATING", "REKEYING", "REKEYED", "DELETING"):
        observed = seen(ike_sa(7, HONEST, replace(child, unique_id=2, state=state)))

        (lie,) = lies(Drift(WISH, observed))
        ended = [step for step in plan(Drift(WISH, observed)) if isinstance(step, TerminateSa)]

        assert (lie.peer, lie.ike_sa) == (PEER, 7)
        assert ended == [TerminateSa(7, f"10.0.0.9 made {lie.because}", at_once=True)]


def test_an_sa_in_the_making_is_no_lie() -> None:
    """It has no selectors yet."""
    for state in ("CREATED", "ROUTED", "INSTALLING"):
        young = replace(HONEST, state=state, local=(), remote=())
        assert lies(Drift(WISH, seen(ike_sa(1, young)))) == ()


def test_honest_sas_stay() -> None:
    """Of the same peer in another IKE_SA, and of others; a hundred lies are one step."""
    liar = ike_sa(3, *(replace(HONEST, unique_id=number, restricted=True) for number in range(100)))
    observed = seen(
        ike_sa(1, HONEST), ike_sa(2, child_sa(2, 200, peer=OTHER, age=1), peer=OTHER), liar
    )

    steps = plan(Drift(WISH, observed))

    assert [step.unique_id for step in steps if isinstance(step, TerminateSa)] == [3]
    assert not [step for step in steps if isinstance(step, TerminateChild)]
    assert "(and 99 more)" in lies(Drift(WISH, observed))[0].because


def test_an_sa_that_moves_is_ended_and_names_who_made_it() -> None:
    """Wherever its peer was first seen; one whose address was not known yet has not moved."""
    first = met((replace(ike_sa(1, HONEST), remote=ip_address("0.0.0.0")), ike_sa(2, HONEST)), ())
    second = met((ike_sa(1, HONEST), ike_sa(2, HONEST)), first)
    assert lies(Drift(WISH, seen(*second))) == ()
    there = replace(HONEST, remote=(ip_network(OTHER),))

    third = met((*second[:1], ike_sa(2, there, peer=OTHER), ike_sa(3, there, peer=OTHER)), second)

    (lie,) = lies(Drift(WISH, seen(*third)))
    assert (lie.peer, lie.ike_sa) == (PEER, 2)
    assert lie.because == f"an SA that it then moved to {OTHER}"
    assert lie.selectors == {frozenset((ip_network(OWN), ip_network(OTHER)))}


def test_the_kernel_has_it_wider_than_charon_says() -> None:
    """As somebody may have changed it, or a charon with a fault: its selector is read, too."""
    observed = seen(ike_sa(1, HONEST))
    wide = tuple(replace(state, between_hosts=False) for state in observed.states)

    assert lies(Drift(WISH, observed)) == ()
    (lie,) = lies(Drift(WISH, replace(observed, states=wide)))
    assert (lie.ike_sa, "wider selector" in lie.because) == (1, True)
    # What a liar calls an SA of its own is no reason to end another's.
    elsewhere = tuple(replace(state, destination=OTHER) for state in wide)
    assert lies(Drift(WISH, replace(observed, states=(*observed.states, *elsewhere)))) == ()


def test_an_honest_duplicate_is_not_ended_for_a_lie() -> None:
    """What is told of a lie is no reason to end another SA, however much it carries."""
    false = ike_sa(2, replace(child_sa(2, 200), restricted=True))
    observed = seen(ike_sa(1, HONEST), false)
    busy = tuple(
        replace(state, last_used=99 if state.spi == 200 else 1) for state in observed.states
    )

    steps = plan(Drift(WISH, replace(observed, states=busy)))

    assert [step.unique_id for step in steps if isinstance(step, TerminateSa)] == [2]


def test_a_trap_that_a_lie_has_taken_is_not_installed_again() -> None:
    """charon puts it back with the end of the lie; a repair would only spend its budget."""
    taken = tuple(replace(policy, esp=False, tunnel=PEER) for policy in TRAPPED)
    own, subnet = ip_network(OWN), WISH.connections[-1].remote
    false = replace(HONEST, transport=False, local=(own,), remote=(subnet,))

    with_lie = plan(Drift(WISH, seen(ike_sa(1, false), policies=taken)))
    without = plan(Drift(WISH, seen(policies=taken)))

    for steps, repaired in ((with_lie, False), (without, True)):
        # What is loaded anew is installed with that.
        loaded = [step for step in steps if isinstance(step, ReinstallPolicies)]
        assert bool(loaded) is (repaired and not _loads(steps))


def _loads(steps: tuple[object, ...]) -> bool:
    return any(type(step).__name__ == "LoadConnection" for step in steps)


def tunnel(source: str, destination: str, direction: Direction = Direction.OUT) -> Policy:
    """A policy in tunnel mode."""
    selector = PolicySelector(direction, ip_network(source), ip_network(destination))
    return Policy(selector, 9, False, False, tunnel=PEER)


@pytest.mark.parametrize(
    ("policy", "told"),
    [
        (tunnel("10.0.0.5/32", "10.0.0.9/32"), True),
        (tunnel("0.0.0.0/0", "10.0.0.0/8"), True),
        (tunnel("10.0.0.9/32", "10.0.0.5/32", Direction.IN), True),
        (tunnel("10.0.0.5/32", "192.168.0.0/16"), False),
        (tunnel("192.168.0.0/16", "10.0.0.5/32", Direction.IN), False),
        (tunnel("192.168.0.0/16", "10.0.0.0/8"), False),
    ],
)
def test_a_tunnel_that_charon_does_not_know(policy: Policy, *, told: bool) -> None:
    """It is named where it takes what our traps do, and left to who made it; a VPN of one's own
    for other addresses is none of ours."""
    observed = seen(policies=(*TRAPPED, policy))

    found = lies(Drift(WISH, observed))

    assert [(lie.peer, lie.ike_sa) for lie in found] == ([(PEER, None)] if told else [])
    assert not [step for step in plan(Drift(WISH, observed)) if isinstance(step, DeletePolicy)]


def test_a_tunnel_that_an_earlier_charon_left_is_removed() -> None:
    """It is an orphan like any other, whatever its mode."""
    priority = 399999 - 512 * (32 + 24)
    left = replace(tunnel("10.0.0.5/32", "10.0.0.0/24"), priority=priority, added=int(BORN) - 9)

    steps = plan(Drift(WISH, seen(policies=(*TRAPPED, left))))

    assert DeletePolicy(left) in steps


networks = st.sampled_from([ip_network(OWN), ip_network(PEER), ip_network(OTHER), WHOLE])


@given(
    st.lists(networks, min_size=1, max_size=2), st.lists(networks, min_size=1, max_size=2),
    st.booleans(), st.booleans(),
)  # fmt: skip
def test_only_the_two_hosts_in_transport_mode_are_honest(
    local: list[Network],
    remote: list[Network],
    transport: bool,
    restricted: bool,
) -> None:
    """Whatever else charon lists is a lie."""
    child = replace(
        HONEST, local=tuple(local), remote=tuple(remote), transport=transport, restricted=restricted
    )
    honest = (
        transport
        and not restricted
        and (set(local), set(remote)) == ({ip_network(OWN)}, {ip_network(PEER)})
    )

    assert bool(lies(Drift(WISH, seen(ike_sa(1, child))))) is not honest


def test_the_problem_names_the_peer_and_what_was_dropped() -> None:
    """Critical, one for each peer, from what charon has and from what the guard counts."""
    table = GuardTable(
        "form",
        tunnelled=(
            ClearPeer(PEER, 3, 300, 1),
            ClearPeer(OTHER, 5, 500, RECENT - 1),
            ClearPeer(ip_address("10.0.0.8"), 5, 500, RECENT),
        ),
    )

    both, counted = liar_problems((Lie(PEER, "an SA for 10.0.0.0/16", 1),), table)

    assert (both.severity, both.subject) == (Severity.CRITICAL, "10.0.0.9")
    assert "10.0.0.9 made an SA for 10.0.0.0/16; the agent ends it" in both.message
    assert "dropped 3 packets" in both.message
    assert counted.subject == "10.0.0.66"
    assert "dropped 5 packets" in counted.message


def test_what_a_liar_made_is_told_while_it_counts() -> None:
    """The SA has ended by the next pass; why stays, as long as what the guard dropped is recent."""
    lie = Lie(PEER, "an SA that is not in transport mode", 1)
    table = GuardTable(form="x", tunnelled=(ClearPeer(PEER, 3, 300, 1),))

    before = remembered((lie,), table, (), NOW)
    before = remembered((), table, before, NOW + 3 * RECENT)
    (later,) = liar_problems((), table, before)
    assert "not in transport mode; the guard dropped 3 packets" in later.message
    assert remembered((), GuardTable(form="x"), before, NOW + 3 * RECENT) == ()


def test_a_lie_explains_a_count_that_is_read_after_it() -> None:
    """The pass that ends the SA reports before the guard is read again."""
    lie = Lie(PEER, "an SA that is not in transport mode", 1)

    first = VM.but(guard=GuardTable(form="x")).assess(lies=(lie,))
    counted = GuardTable(form="x", tunnelled=(ClearPeer(PEER, 1, 100, 1),))
    later = VM.but(guard=counted, time=NOW + 2).assess(first.memory)

    (told,) = (problem for problem in later.problems if problem.code == "peer-lies")
    assert "made an SA that is not in transport mode; the guard dropped 1 packet" in told.message


def test_the_problem_outlasts_its_cause() -> None:
    """It is ended within the pass that sees it, and is shown for ten minutes all the same."""
    lie = Lie(PEER, "an SA for 10.0.0.0/16", 1)
    first = VM.assess(lies=(lie,))

    def shown(after: float) -> set[str]:
        later = VM.but(time=NOW + after).assess(first.memory)
        return {problem.code for problem in later.problems}

    assert "peer-lies" in shown(0)
    assert "peer-lies" in shown(599)
    assert "peer-lies" not in shown(601)
