"""The guard's table some seconds after it was listed."""

from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.observed_guard import ClearLink, ClearPeer, GuardTable

PEER = ClearPeer(ip_address("10.0.0.7"), 3, 300, 4)
TABLE = GuardTable(
    "form",
    clear_in=(PEER,),
    clear_out=(replace(PEER, idle=1),),
    misplaced=(replace(PEER, idle=2),),
    untranslated=(replace(PEER, idle=0),),
    unguarded=(ClearLink("eth1", 1, 100, 9),),
)


def test_silence_grows_with_the_age_of_the_listing() -> None:
    """What was silent for some seconds then has been so for more now; else nothing is new."""
    later = TABLE.aged(5)

    assert [later.clear_in[0].idle, later.clear_out[0].idle] == [9, 6]
    assert [later.misplaced[0].idle, later.untranslated[0].idle] == [7, 5]
    assert later.unguarded[0].idle == 14
    assert replace(later.clear_in[0], idle=4) == PEER
    assert TABLE.aged(0) == TABLE
