"""Which rule of a firewall lets packets pass to a peer."""

from ipaddress import ip_address

import pytest

from ipsec_agent.core.doctor.firewall_probe import Passage, probed, told
from ipsec_agent.core.proof import Echoes, Observation, Pair, Window
from ipsec_agent.core.verify import judge

PEER = ip_address("10.0.1.9")
PAIR = Pair(PEER, ip_address("10.0.1.5"), encrypted=True, because="")
IKE = Window(ike_out=4, ike_in=4)
ESP = Window(esp_out=5, esp_in=5)
PASSES, HELD, UNTRIED = Passage.PASSES, Passage.HELD_BACK, Passage.NOT_TRIED


@pytest.mark.parametrize(
    ("seen", "wanted"),
    [
        (
            Observation(PAIR, IKE, ESP, sas=True, counted_out=5, counted_in=5, knocked=True),
            (PASSES, PASSES),
        ),
        # The rule for ESP is missing at one end.
        (
            Observation(PAIR, IKE, Window(esp_out=5), sas=True, counted_out=5),
            (PASSES, HELD),
        ),
        # This VM's own firewall drops it, so that it is never on the wire.
        (Observation(PAIR, IKE, sas=True, counted_out=5), (PASSES, HELD)),
        # No rule at all.
        (Observation(PAIR, Window(ike_out=3)), (HELD, UNTRIED)),
        # charon does not run there, and that VM's kernel tells so: the packet came through.
        (Observation(PAIR, Window(ike_out=3, closed=2)), (PASSES, UNTRIED)),
        # Nothing of a firewall is told by these.
        (Observation(PAIR, Window(ike_out=3), absent=True), (UNTRIED, UNTRIED)),
        (Observation(PAIR, echoes=Echoes(1, ("EPERM",))), (UNTRIED, UNTRIED)),
        (
            Observation(Pair(PEER, None, encrypted=True, because="")),
            (UNTRIED, UNTRIED),
        ),
    ],
)
def test_each_rule(seen: Observation, wanted: tuple[Passage, Passage]) -> None:
    """As the packets tell."""
    results = probed(seen, judge(seen), encapsulated=False)

    assert tuple(one.passage for one in results) == wanted
    assert all(one.why for one in results)


def test_told() -> None:
    """As comments, so that the whole output is still a script; ESP's rule as the config has it."""
    seen = Observation(PAIR, IKE, Window(esp_out=5), sas=True, counted_out=5)

    ike, esp = told(probed(seen, judge(seen), encapsulated=True))

    assert ike == "# UDP 500 and UDP 4500: passes: 10.0.1.9 answered"
    ike, _ = told(probed(seen, judge(seen), encapsulated=False))
    assert ike == (
        "# UDP 500: passes: 10.0.1.9 answered; UDP 4500 was not tried: force_udp_encapsulation is"
        " not set"
    )
    # Only the first message was answered: nothing tells of the other port.
    begun = Observation(PAIR, Window(ike_out=4, ike_in=1))
    ike, _ = told(probed(begun, judge(begun), encapsulated=True))
    assert ike == "# UDP 500: passes: 10.0.1.9 answered"
    closed = Observation(PAIR, Window(ike_out=3, closed=2))
    ike, _ = told(probed(closed, judge(closed), encapsulated=True))
    assert ike == (
        "# UDP 500: passes: 10.0.1.9 answered that no program listens there, so it has no charon"
    )
    assert esp.startswith("# ESP (UDP 4500): held back: 5 went to 10.0.1.9, none came back")
