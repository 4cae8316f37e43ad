"""What a flood's ends say is lost: by numbers, so that what comes late takes nothing away."""

import random
import socket
from collections.abc import Iterator

import pytest

from tests.lab.flood_program import SIZE, Taker
from tests.lab.floods import Reading, between, together


class Ends:
    """A datagram socket of a flood, and what its taker says of the numbers that it was sent."""

    def __init__(self, target: socket.socket, out: socket.socket) -> None:
        self._taker = Taker(target, stream=False)
        self._out = out

    def send(self, *numbers: int) -> None:
        """Have these come, in this order."""
        for number in numbers:
            self._out.send(number.to_bytes(8, "big") * (SIZE // 8))
            self._taker.take()

    def reading(self) -> Reading:
        """What both ends say now."""
        out = {"at": 0.0, "sent": 0, "refused": {}}
        return Reading(out, self._taker.found() | {"at": 0.0})


@pytest.fixture
def ends() -> Iterator[Ends]:
    """An end that listens, and one that sends."""
    out, target = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with out, target:
        target.setblocking(False)
        yield Ends(target, out)


other = ends


def test_a_late_datagram_of_before_takes_no_loss_away(ends: Ends) -> None:
    """Overtaken before the window, it comes in it; of the lost, the one of the window counts."""
    ends.send(0, 1, 3, 5)
    start = ends.reading()
    ends.send(2, 6, 8)
    flow = between(start, ends.reading())
    assert flow.lost == 1
    assert flow.arrived == 3
    assert between(start, start).lost == 0


@pytest.mark.parametrize("seed", range(20))
def test_lost_are_the_numbers_that_never_came(ends: Ends, seed: int) -> None:
    """In any order: those lower than the highest that are not among them."""
    dice = random.Random(seed)
    came = dice.sample(range(60), 40)
    start = ends.reading()
    ends.send(*came)
    assert between(start, ends.reading()).lost == max(came) + 1 - len(came)


def test_what_came_to_another_receiver_is_not_lost(ends: Ends, other: Ends) -> None:
    """An address moved: each receiver lacks what the other has, and one number is lost."""
    start = ends.reading()
    ends.send(0, 1, 6, 7)
    other.send(3, 4, 5)
    came = together([ends.reading().came, other.reading().came])
    assert between(start, Reading(start.out, came)).lost == 1
