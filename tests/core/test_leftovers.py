"""IKE_SAs that carry nothing: one with each peer stays."""

import pytest
from msgspec.structs import replace

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.leftovers import SETTLED, endings
from ipsec_agent.core.observed import IkeSa
from ipsec_agent.core.plan import plan
from ipsec_agent.core.steps import TerminateSa
from tests.vm import OWN, PEER, healthy_vm, with_sa

NAME = "ipsec-10.0.0.0/16"


def left(number: int, **changes: object) -> IkeSa:
    """An IKE_SA without a CHILD_SA that this VM has made for a packet."""
    return replace(IkeSa(number, NAME, "ESTABLISHED", OWN, PEER, True, 100), **changes)


def ended(*sas: IkeSa) -> list[int]:
    """The numbers of those that end, beside one that carries the traffic with another peer."""
    vm = with_sa(healthy_vm(), "10.0.0.20")
    assert vm.observed.charon is not None
    vm = vm.but(charon=replace(vm.observed.charon, sas=(*vm.observed.charon.sas, *sas)))
    drift = Drift(vm.desired, vm.observed)
    found = [step.unique_id for step in endings(drift)]
    steps = [step.unique_id for step in plan(drift) if isinstance(step, TerminateSa)]
    assert found == steps
    return found


def test_the_newest_stays() -> None:
    """Sixteen attempts leave one, whatever charon lists first."""
    many = [left(number) for number in range(10, 26)]

    assert sorted(ended(*many)) == list(range(10, 25))
    assert sorted(ended(*reversed(many))) == list(range(10, 25))
    assert ended(many[0]) == []
    assert ended(many[0], left(11, remote=PEER + 1)) == []


@pytest.mark.parametrize(
    "changes",
    [
        {"age": SETTLED - 1},
        {"initiator": False},
        {"state": "CONNECTING"},
        {"state": "REKEYED"},
        {"name": "ipsec-trial-10.0.0.9"},
        {"remote": PEER + 1},
    ],
)
def test_what_is_left_alone(changes: dict[str, object]) -> None:
    """What may still be used, what the peer has made, and what is not of a trap."""
    assert ended(left(10, **changes), left(11)) == []
    assert ended(left(10), left(11)) == [10]


def test_of_two_that_crossed_one_stays() -> None:
    """Each VM has numbered the other's last; only one of them ends its own."""
    here = ended(left(10), left(11, initiator=False))
    there = ended(
        left(20, local=PEER, remote=OWN), left(21, local=PEER, remote=OWN, initiator=False)
    )

    assert (here, there) == ([10], []) if int(OWN) < int(PEER) else ([], [20])


def test_the_higher_address_ends_all_but_one() -> None:
    """It, too, keeps no more than the newest that it has begun."""
    low, high = sorted((OWN, PEER), key=int)
    many = [left(number, local=high, remote=low) for number in range(10, 14)]

    assert sorted(ended(*many, left(14, local=high, remote=low, initiator=False))) == [10, 11, 12]
