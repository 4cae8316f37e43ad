"""What a killed charon left behind goes without a gap."""

from ipaddress import ip_address, ip_network

from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.model import Address, Direction, PolicySelector
from ipsec_agent.core.observed import (
    Charon,
    CharonProcess,
    ChildSa,
    IkeSa,
    Observed,
    Policy,
    SecurityAssociation,
)
from ipsec_agent.core.orphans import orphan_steps, renewals_wait
from ipsec_agent.core.pacing import BEGUN_AT_ONCE, begins
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.steps import DeletePolicy, DeleteState, Renew
from ipsec_agent.core.swanctl import renewal_message
from tests.configs import config

OWN, PEER, OTHER = (ip_address(f"10.0.0.{last}") for last in (5, 9, 66))
BORN = 1000.0
PROCESS = CharonProcess(pid=1, started=BORN, memory=0, ours=True)
WISH = desired(config(no_ipsec=("10.0.0.66/32",)), Placement(OWN, (OWN,)))


def left(peer: Address, spi: int = 7) -> tuple[tuple[Policy, ...], tuple[SecurityAssociation, ...]]:
    """Policies and SAs with a peer, made before the charon that runs."""
    own, far = ip_network(OWN), ip_network(peer)
    priority = 399999 - 512 * 64
    policies = (
        Policy(PolicySelector(Direction.OUT, own, far), priority, True, False, added=900),
        Policy(PolicySelector(Direction.IN, far, own), priority, True, False, added=900),
    )
    states = (
        SecurityAssociation(OWN, peer, spi, 1, added=900),
        SecurityAssociation(peer, OWN, spi + 1, 1, added=900),
    )
    return policies, states


def child_sa(number: int, spi: int, *, peer: Address = PEER, age: int = 20) -> ChildSa:
    """An installed CHILD_SA with a peer; `spi` is that of what we send."""
    return ChildSa(
        unique_id=number,
        name="x",
        state="INSTALLED",
        spi_in=spi + 1,
        spi_out=spi,
        reqid=2,
        local=(ip_network(OWN),),
        remote=(ip_network(peer),),
        bytes_in=0,
        bytes_out=0,
        packets_in=0,
        packets_out=0,
        age=age,
    )


def ike_sa(number: int, *children: ChildSa, peer: Address = PEER, own: Address = OWN) -> IkeSa:
    """An IKE_SA with a peer."""
    return IkeSa(number, "x", "ESTABLISHED", own, peer, True, 20, children)


def world(*sas: IkeSa, peer: Address = PEER, age: float = 1.0) -> Observed:
    """charon began a moment ago, and orphans of an earlier one are there."""
    policies, states = left(peer)
    return Observed(Charon(PROCESS, sas=sas), policies, states, time=BORN + age)


def test_a_peer_is_renewed_before_its_orphans_go() -> None:
    """Nothing is deleted while only the orphans carry the peer's traffic."""
    assert Drift(WISH, world()).orphan_peers == ((OWN, PEER),)
    # The peer is to begin; one that does not is not waited for.
    assert orphan_steps(Drift(WISH, world())) == ()
    (step,) = orphan_steps(Drift(WISH, world(age=4.0)))

    assert isinstance(step, Renew)
    name = step.connection.name
    message = renewal_message(step.connection)[name]
    assert name.startswith("ipsec-renew-")
    assert name.endswith("-10.0.0.9")
    assert message["remote_addrs"] == ["10.0.0.9"]
    assert message["local_addrs"] == ["10.0.0.5"]
    assert message["children"][name]["start_action"] == "none"
    assert message["children"][name]["remote_ts"] == ["10.0.0.9/32"]
    assert message["local"]["certs"]
    # As that of the trap, or the kernel would drop what arrives on the SA that a peer begins next.
    (trap,) = (child for one in WISH.connections for child in one.children if child.reqid)
    assert message["children"][name]["reqid"] == str(trap.reqid)


def test_one_renewal_at_a_time() -> None:
    """While IKE with the peer is under way, it is waited for."""
    assert orphan_steps(Drift(WISH, world(ike_sa(1), age=4.0))) == ()


def test_a_renewal_that_is_about_to_begin() -> None:
    """It is not asked for twice while charon has not begun it."""
    seen = world(age=4.0)
    (step,) = orphan_steps(Drift(WISH, seen))
    assert isinstance(step, Renew)
    assert seen.charon is not None
    begun = replace(seen.charon, renewing=frozenset({step.connection.name}))

    assert orphan_steps(Drift(WISH, replace(seen, charon=begun))) == ()


def fleet(count: int, *, age: float) -> Observed:
    """Orphans with so many peers."""
    made = [left(OTHER + 1 + number, 2 * number + 7) for number in range(count)]
    return Observed(
        Charon(PROCESS),
        tuple(policy for policies, _ in made for policy in policies),
        tuple(state for _, states in made for state in states),
        time=BORN + age,
    )


def test_few_renewals_at_once() -> None:
    """First those that this VM is to begin; those that have their turn count."""
    seen = fleet(100, age=1.0)
    steps = orphan_steps(Drift(WISH, seen))

    assert seen.charon is not None
    assert len(steps) == BEGUN_AT_ONCE
    peers = [step.connection.remote for step in steps if isinstance(step, Renew)]
    assert all(begins((OWN, peer.network_address)) for peer in peers)
    names = frozenset(step.connection.name for step in steps[:10] if isinstance(step, Renew))
    some = replace(seen, charon=replace(seen.charon, renewing=names))
    others = orphan_steps(Drift(WISH, some))
    assert len(others) == BEGUN_AT_ONCE - 10
    assert not names & {step.connection.name for step in others if isinstance(step, Renew)}


def test_orphans_of_many_peers_stay_until_each_had_its_turn() -> None:
    """With 320 peers 20 seconds longer than with one; meanwhile no pass is late."""
    assert all(isinstance(it, Renew) for it in orphan_steps(Drift(WISH, fleet(320, age=39.0))))
    assert renewals_wait(Drift(WISH, fleet(320, age=39.0)))
    late = Drift(WISH, fleet(320, age=41.0))
    assert len(orphan_steps(late)) == 4 * 320
    assert not renewals_wait(late)
    assert not renewals_wait(Drift(WISH, replace(fleet(0, age=1.0), charon=None)))


def test_renewed() -> None:
    """Once a new CHILD_SA stands, which has taken the policies over, only the old SAs go."""
    steps = orphan_steps(Drift(WISH, world(ike_sa(1, child_sa(1, 77)))))

    assert [type(step) for step in steps] == [DeleteState, DeleteState]


def test_a_peer_that_does_not_answer() -> None:
    """After 20 seconds its orphans go; the trap asks for an SA when it is wanted."""
    steps = orphan_steps(Drift(WISH, world(age=21.0)))

    assert (
        sorted(type(step).__name__ for step in steps) == ["DeletePolicy"] * 2 + ["DeleteState"] * 2
    )


def test_a_peer_that_speaks_clear_now() -> None:
    """Orphans with a peer that the config exempts go at once."""
    steps = orphan_steps(Drift(WISH, world(peer=OTHER)))

    assert {type(step) for step in steps} == {DeletePolicy, DeleteState}


def test_orphans_of_the_same_second() -> None:
    """What stood when charon was started is an orphan, though the kernel's times do not tell it."""
    policies, states = left(PEER)
    observed = Observed(
        Charon(PROCESS),
        tuple(replace(one, added=int(BORN), index=9) for one in policies),
        tuple(replace(one, added=int(BORN)) for one in states),
        time=BORN + 21,
    )

    assert orphan_steps(Drift(WISH, observed)) == ()
    noted = replace(observed, inherited=Inherited(frozenset({7, 8}), frozenset({9})))
    assert len(orphan_steps(Drift(WISH, noted))) == 4


def test_lost_children() -> None:
    """A CHILD_SA is lost where the kernel lacks either of its SAs."""
    seen = world(ike_sa(1, child_sa(3, 77)))
    both = tuple(SecurityAssociation(OWN, PEER, spi, 2) for spi in (77, 78))

    assert [child.unique_id for child in Drift(WISH, seen).lost_children] == [3]
    half = Drift(WISH, replace(seen, states=both[:1]))
    assert [child.unique_id for child in half.lost_children] == [3]
    assert Drift(WISH, replace(seen, states=both)).lost_children == ()


def test_lost_policies() -> None:
    """Without its policies a CHILD_SA is lost, too: charon would refuse another beside it."""
    seen = world(ike_sa(1, child_sa(3, 77)))
    states = tuple(SecurityAssociation(OWN, PEER, spi, 2) for spi in (77, 78))
    whole = replace(seen, states=states)

    for kept in (whole.policies[:1], whole.policies[1:], ()):
        half = Drift(WISH, replace(whole, policies=kept))
        assert [child.unique_id for child in half.lost_children] == [3]
    assert Drift(WISH, whole).lost_children == ()


def test_an_sa_made_during_the_pass_is_not_foreign() -> None:
    """charon answered before it made it; older policies that it does not know are foreign."""
    young = tuple(replace(one, added=int(BORN) + 60) for one in left(OTHER)[0])
    seen = Observed(Charon(PROCESS), young, time=BORN + 60.9)

    assert Drift(WISH, seen).foreign == ()
    assert Drift(WISH, replace(seen, time=BORN + 61)).foreign == young
    passes = tuple(replace(one, esp=False) for one in young)
    assert Drift(WISH, replace(seen, policies=passes)).foreign == passes
