"""Peers are asked what they say to another certificate: which, how, and what follows from it."""

from datetime import timedelta
from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.rehearsal import (
    NAME,
    SHOWN,
    Answer,
    Asked,
    differs,
    holds,
    known,
    refused_by_most,
    rehearsal,
    told,
)
from tests.configs import config
from tests.core.test_orphans import OWN, PEER, WISH, child_sa, ike_sa
from tests.core.test_rotation import drift, fleet

ADDRESSES = [ip_address("10.0.0.9") + number for number in range(20)]


def asked(accepted: int, refused: int, silent: int = 0) -> tuple[Asked, ...]:
    """So many peers."""
    answers = (
        *(Answer.ACCEPTED,) * accepted,
        *(Answer.REFUSED,) * refused,
        *(Answer.SILENT,) * silent,
    )
    return tuple(Asked(peer, one) for peer, one in zip(ADDRESSES, answers, strict=False))


def test_most_must_refuse() -> None:
    """Half of them do not, nor one among many; who is silent has no voice, and nobody no veto."""
    for accepted, refused, silent, wanted in (
        (0, 1, 0, True),
        (1, 1, 0, False),
        (3, 4, 9, True),
        (4, 3, 9, False),
        (0, 0, 5, False),
        (0, 0, 0, False),
    ):
        assert refused_by_most(asked(accepted, refused, silent)) is wanted


def test_what_an_operator_is_told() -> None:
    """How many, and who, with the reason; not all of a fleet."""
    one = (Asked(PEER, Answer.REFUSED, "peer-refuses-us"), Asked(OWN, Answer.ACCEPTED))
    assert told(one) == f"1 of 2 peers that answered refuse it: {PEER} (peer-refuses-us)"
    assert told(asked(0, SHOWN + 2)).endswith(f"{ADDRESSES[SHOWN - 1]} and 2 more")


def test_what_is_another_certificate() -> None:
    """Another leaf, or other CAs in whatever order; nothing else."""
    one = config()
    authority = one.credentials.authorities[0]
    more = (authority, replace(authority, name="other", certificate=b"other"))
    both = replace(one, credentials=replace(one.credentials, authorities=more))
    turned = replace(one, credentials=replace(one.credentials, authorities=more[::-1]))
    assert differs(replace(one, certificate=b"other"), one)
    assert differs(both, one)
    assert not differs(turned, both)
    assert not differs(replace(one, optional=True), one)


def test_what_has_ended_is_replaced() -> None:
    """Also where it has not begun."""
    one = config()
    facts = one.certificates[0]
    assert holds(one, facts.not_before)
    assert not holds(one, facts.not_before - timedelta(seconds=1))
    assert not holds(one, facts.not_after)


def test_who_is_asked() -> None:
    """Who has an SA that carries traffic, so many of them at the most, not the same for all VMs."""
    charon = drift(*fleet(20), ike_sa(99)).observed.charon
    assert charon is not None
    found = known(charon)
    assert len(set(found)) == 20
    assert known(charon, 3) == found[:3] != tuple(sorted(found))[:3]
    twice = drift(*(ike_sa(n, child_sa(n, n)) for n in (1, 2))).observed.charon
    assert known(twice) == ((OWN, PEER),)
    assert known(None) == known(replace(charon, responsive=False)) == ()


def test_how_it_is_asked() -> None:
    """By a connection of that peer's alone, whose name no renewal has."""
    made = rehearsal(WISH, (OWN, PEER))
    assert made is not None
    assert (made.name, str(made.remote)) == (f"{NAME}{PEER}", f"{PEER}/32")
    assert [child.name for child in made.children] == [made.name]
    assert made.settings == WISH.connections[-1].settings
    assert rehearsal(WISH, (OWN, ip_address("192.0.2.1"))) is None
