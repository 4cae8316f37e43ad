"""Traffic of each peer, across rekeyings, and the suspicion that it goes only one way."""

from ipaddress import ip_address

from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.traffic import FORGOTTEN_AFTER, Memory, Peer, followed, one_way

OWN, PEER, OTHER = (ip_address(f"10.0.0.{last}") for last in (5, 9, 66))
T = 1_800_000_000.0


def sas(
    came: int, went: int, *, peer: Address = PEER, spi: int = 1, used: int = 0
) -> tuple[SecurityAssociation, SecurityAssociation]:
    """A pair of SAs with so many packets of 100 bytes."""
    return (
        SecurityAssociation(peer, OWN, spi, 1, 100 * came, came, last_used=used),
        SecurityAssociation(OWN, peer, spi, 1, 100 * went, went, last_used=used),
    )


def after(*passes: tuple[float, tuple[SecurityAssociation, ...]]) -> Peer:
    """The one peer after passes, each seconds after T and the SAs then."""
    memory = Memory()
    for seconds, states in passes:
        memory = followed(states, (OWN,), memory, T + seconds)
    (peer,) = memory.peers
    return peer


def test_sums_across_rekeying() -> None:
    """A new SA begins at 0, and the peer's sum goes on."""
    peer = after((0, sas(10, 20)), (10, sas(15, 25) + sas(2, 3, spi=2)), (20, sas(9, 8, spi=2)))

    assert (peer.inward.packets, peer.outward.packets) == (24, 33)
    assert (peer.inward.bytes, peer.outward.bytes) == (2400, 3300)


def test_spi_again() -> None:
    """An SPI that comes again with less belongs to a new SA."""
    assert after((0, sas(10, 10)), (10, sas(3, 3))).inward.packets == 13


def test_larval_and_strangers() -> None:
    """SAs that wait for IKE, and those between other hosts, are nobody's traffic."""
    states = (SecurityAssociation(OWN, PEER, 0, 1), SecurityAssociation(PEER, OTHER, 9, 1))

    assert followed(states, (OWN,), Memory(), T).peers == ()


def test_one_way_out() -> None:
    """Packets that go out for 15 s while none comes back, rekeyed in between: suspected."""
    steps = [(0, sas(5, 5)), (5, sas(5, 6)), (15, sas(5, 9) + sas(0, 0, spi=2))]

    assert after(*steps).one_way == ""
    assert after(*steps, (20, sas(0, 4, spi=2))).one_way == "out"


def test_one_way_in() -> None:
    """The reverse is suspected, too."""
    assert after((0, sas(0, 0)), (5, sas(3, 0)), (20, sas(9, 0))).one_way == "in"


def test_single_packet() -> None:
    """One packet without an answer is no traffic that goes one way, however long ago."""
    assert after((0, sas(5, 5)), (5, sas(5, 6)), (300, sas(5, 6))).one_way == ""


def test_an_answer_ends_it() -> None:
    """One packet that comes back ends the suspicion at once."""
    assert after((0, sas(5, 5)), (5, sas(5, 6)), (25, sas(5, 9)), (30, sas(6, 10))).one_way == ""


def test_over_when_quiet_ends() -> None:
    """An answer alone, after which nothing goes out, ends it as well."""
    assert after((0, sas(5, 5)), (5, sas(5, 6)), (25, sas(5, 9)), (30, sas(6, 9))).one_way == ""


def test_gap_without_sa() -> None:
    """The suspicion outlives a moment without any SA, as when charon was killed."""
    peer = after((0, sas(5, 5)), (5, sas(5, 6)), (12, ()), (20, sas(0, 2, spi=3)))

    assert peer.one_way == "out"


def test_forgotten() -> None:
    """A peer without an SA for a minute is forgotten."""
    memory = followed(sas(1, 1), (OWN,), Memory(), T)

    assert followed((), (OWN,), memory, T + FORGOTTEN_AFTER).peers
    assert not followed((), (OWN,), memory, T + FORGOTTEN_AFTER + 1).peers


def test_last_packet() -> None:
    """The kernel says when an SA was used; the rise of a later pass knows better."""
    used = int(T) - 40

    assert after((0, sas(5, 5, used=used))).inward.last == T - 40
    assert after((0, sas(5, 5, used=used)), (10, sas(5, 5, used=used))).inward.last == T - 40
    assert after((0, sas(5, 5, used=used)), (10, sas(6, 5, used=used))).inward.last == T + 10


def test_never_used() -> None:
    """Without a packet nothing is known of the last one."""
    assert after((0, sas(0, 0)), (10, sas(0, 0))).inward.last == 0


def test_problems() -> None:
    """Many peers are one problem for each direction, which leaves the VM healthy."""
    memory = Memory()
    peers = [ip_address(f"10.0.1.{last}") for last in range(1, 6)]
    for seconds in (0, 20):
        states = sum((sas(0, 1 + seconds, peer=peer) for peer in peers), ())
        memory = followed(states + sas(1 + seconds, 0), (OWN,), memory, T + seconds)

    out, back = one_way(memory.peers)

    assert (out.code, out.severity, out.subject) == ("peer-one-way", Severity.INFO, "out")
    assert "go out to 10.0.1.1, 10.0.1.2, 10.0.1.3 and 2 more but none" in out.message
    assert "come in from 10.0.0.9 but none have gone back" in back.message


steps = st.tuples(st.floats(0.1, 30), st.integers(0, 3), st.integers(0, 3), st.booleans())


@given(st.lists(steps, min_size=1, max_size=30))
def test_follows_the_truth(turns: list[tuple[float, int, int, bool]]) -> None:
    """With any rekeyings the sums are right, and what goes both ways is never suspected."""
    memory = Memory()
    now, spi, came, went, total = T, 1, 0, 0, [0, 0]
    alone: dict[str, float | None] = {"in": None, "out": None}
    expected = ""
    for gap, more_in, more_out, rekeyed in turns:
        now += gap
        if rekeyed:
            spi, came, went = spi + 1, 0, 0
        came, went = came + more_in, went + more_out
        total = [total[0] + more_in, total[1] + more_out]
        for name, this, that in (("in", more_in, more_out), ("out", more_out, more_in)):
            if that:
                alone[name] = None
                expected = "" if expected == name else expected
            elif this:
                begun = alone[name] = now if alone[name] is None else alone[name]
                expected = name if begun is not None and now - begun >= 15 else expected
        memory = followed(sas(came, went, spi=spi), (OWN,), memory, now)

    (peer,) = memory.peers
    assert [peer.inward.packets, peer.outward.packets] == total
    assert peer.one_way == expected
