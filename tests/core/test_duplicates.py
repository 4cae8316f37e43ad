"""Two CHILD_SAs with one peer: one VM ends the one that it does not send on."""

from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.duplicates import endings
from ipsec_agent.core.observed import Charon, IkeSa, SecurityAssociation
from ipsec_agent.core.steps import TerminateChild, TerminateSa
from tests.core.test_orphans import OWN, PEER, PROCESS, child_sa, ike_sa

BECAUSE = "another one carries the traffic with 10.0.0.9"
LOWER = ip_address("10.0.0.1")


def sent(spi: int, *, used: int = 0, added: int = 0) -> SecurityAssociation:
    """The SA that we send on."""
    return SecurityAssociation(OWN, PEER, spi, 2, added=added, last_used=used)


def both(*sas: IkeSa) -> Charon:
    """charon with these IKE_SAs."""
    return Charon(PROCESS, sas=sas)


TWO = (ike_sa(1, child_sa(11, 100)), ike_sa(2, child_sa(12, 200)))


def test_the_unused_one_ends() -> None:
    """The one that was used last stays, whichever is younger."""
    (step,) = endings(both(*TWO), (sent(100, used=50, added=1), sent(200, used=40, added=2)))

    assert step == TerminateSa(2, BECAUSE)


def test_the_younger_one_stays() -> None:
    """Where both were used in the same second, the kernel sends on the younger."""
    (step,) = endings(both(*TWO), (sent(100, used=9, added=1), sent(200, used=9, added=2)))

    assert step == TerminateSa(1, BECAUSE)


def test_the_busy_one_stays() -> None:
    """Of two SAs of one second the one that carries the traffic has more packets."""
    states = (sent(100, added=1), replace(sent(200, added=1), packets=9))

    assert endings(both(*TWO), states) == (TerminateSa(1, BECAUSE),)
    assert endings(both(*TWO), states[::-1]) == (TerminateSa(1, BECAUSE),)


def test_the_first_in_the_list_stays() -> None:
    """Of two SAs of one second the kernel lists the younger first, however charon numbers them."""
    states = (sent(100, added=1), sent(200, added=1))

    assert endings(both(*TWO), states)[0] == TerminateSa(2, BECAUSE)
    assert endings(both(*TWO), states[::-1])[0] == TerminateSa(1, BECAUSE)


def test_only_the_lower_address_acts() -> None:
    """The other VM waits, so that never both end one."""
    theirs = tuple(replace(sa, remote=LOWER) for sa in TWO)

    assert endings(both(*theirs), ()) == ()


def test_fresh_ones_are_left() -> None:
    """A CHILD_SA that is young may be part of a rekeying."""
    fresh = (TWO[0], ike_sa(2, child_sa(12, 200, age=3)))

    assert endings(both(*fresh), ()) == ()


def test_two_of_one_ike_sa() -> None:
    """Only the CHILD_SA ends where its IKE_SA is shared."""
    shared = ike_sa(1, child_sa(11, 100), child_sa(12, 200))

    (step,) = endings(both(shared), (sent(200, used=1),))

    assert step == TerminateChild(11, BECAUSE)


def test_none() -> None:
    """One with each peer is left alone."""
    other = ip_address("10.0.0.10")

    assert endings(both(TWO[0], ike_sa(2, child_sa(12, 200, peer=other), peer=other)), ()) == ()
