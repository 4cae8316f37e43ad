"""The peers: who is remembered, and who is poked after a crash."""

from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.desired import desired
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.observed import Charon, Observed, SecurityAssociation
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.pacing import BEGUN_AT_ONCE, TURN, begins
from ipsec_agent.core.peers import FORGOTTEN_AFTER, PeersToDo, peers_to_do, pokes_wait
from ipsec_agent.core.placement import Placement
from tests.configs import config
from tests.core.test_orphans import BORN, OWN, PEER, PROCESS, child_sa, ike_sa
from tests.fakes import installed

WISH = desired(config(), Placement(OWN, (OWN,)))
NOW = BORN + 1
WORLD = Observed(Charon(PROCESS), tuple(installed(policy) for policy in WISH.policies), time=NOW)
KNOWN = RememberedPeer(PEER, NOW - 10)


def test_a_new_peer_is_written_down() -> None:
    """With it those seen within a week; older ones are forgotten."""
    old = RememberedPeer(ip_address("10.0.0.1"), NOW - FORGOTTEN_AFTER)
    recent = RememberedPeer(ip_address("10.0.0.2"), NOW - 1000)
    charon = Charon(PROCESS, sas=(ike_sa(1, child_sa(1, 7)),))

    todo = peers_to_do(Drift(WISH, replace(WORLD, charon=charon, remembered=(old, recent))))

    assert todo.remember == (RememberedPeer(PEER, NOW), recent)


def test_one_that_is_known_costs_no_writing() -> None:
    """The file is left alone while nothing changes."""
    charon = Charon(PROCESS, sas=(ike_sa(1, child_sa(1, 7)),))

    assert (
        peers_to_do(Drift(WISH, replace(WORLD, charon=charon, remembered=(KNOWN,)))) == PeersToDo()
    )


def test_poked_once() -> None:
    """A remembered peer without an SA is poked once, soon after charon's start."""
    poked = replace(KNOWN, poked=True)
    world = replace(WORLD, remembered=(KNOWN,))

    assert peers_to_do(Drift(WISH, world)).poke == (PEER,)
    assert peers_to_do(Drift(WISH, replace(world, remembered=(poked,)))).poke == ()
    assert peers_to_do(Drift(WISH, replace(world, time=BORN + 61))).poke == ()


def test_not_poked() -> None:
    """Not without the traps, nor with IKE under way, nor while an old SA would carry the packet."""
    world = replace(WORLD, remembered=(KNOWN,))
    under_way = Charon(PROCESS, sas=(ike_sa(1),))
    orphan = SecurityAssociation(OWN, PEER, 7, 1)

    assert peers_to_do(Drift(WISH, replace(world, policies=()))).poke == ()
    assert peers_to_do(Drift(WISH, replace(world, charon=under_way))).poke == ()
    assert peers_to_do(Drift(WISH, replace(world, states=(orphan,)))).poke == ()
    assert peers_to_do(Drift(WISH, replace(world, states=(replace(orphan, spi=0),)))).poke == (
        PEER,
    )


def test_nobody_is_poked_from_a_clear_vm() -> None:
    """A VM that speaks clear has no SAs to renew."""
    clear = desired(config(no_ipsec=("10.0.0.5/32",)), Placement(OWN, (OWN,)))

    assert peers_to_do(Drift(clear, replace(WORLD, remembered=(KNOWN,)))) == PeersToDo()


def test_few_are_poked_at_once() -> None:
    """First those with which this VM is to begin; one that was poked a moment ago counts."""
    peers = tuple(RememberedPeer(PEER + n, NOW - 10) for n in range(100))
    world = replace(WORLD, remembered=peers)
    first = peers_to_do(Drift(WISH, world)).poke
    assert len(first) == BEGUN_AT_ONCE
    assert all(begins((OWN, peer)) for peer in first)

    def poked(ago: float) -> Observed:
        return replace(
            world,
            remembered=tuple(
                replace(peer, poked=peer.address in first, poked_at=NOW - ago) for peer in peers
            ),
        )

    assert peers_to_do(Drift(WISH, poked(TURN / 2))).poke == ()
    assert pokes_wait(Drift(WISH, poked(TURN / 2)))
    # The dead have had their turn, and those that answered need none.
    later = peers_to_do(Drift(WISH, poked(TURN))).poke
    assert len(later) == BEGUN_AT_ONCE
    assert not set(first) & set(later)
    sas = tuple(
        ike_sa(n, child_sa(n, 2 * n + 7, peer=peer), peer=peer) for n, peer in enumerate(first, 1)
    )
    answered = replace(poked(TURN / 2), charon=Charon(PROCESS, sas=sas))
    assert len(peers_to_do(Drift(WISH, answered)).poke) == BEGUN_AT_ONCE


def test_many_have_more_time() -> None:
    """Each of 320 has its turn within 20 seconds more, even if none of them answers."""
    peers = tuple(RememberedPeer(PEER + n, NOW - 10) for n in range(320))
    for age, waits in ((79, True), (81, False)):
        world = replace(WORLD, remembered=peers, time=BORN + age)
        assert bool(peers_to_do(Drift(WISH, world)).poke) == waits
        assert pokes_wait(Drift(WISH, world)) == waits
    assert not pokes_wait(Drift(WISH, replace(WORLD, remembered=peers, charon=None)))
