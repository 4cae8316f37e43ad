"""A clock that is a year ahead, with real charons: the clock is named before the certificate."""

import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import SCALE, Node, network
from tests.lab.deployment import A, B, configure, start
from tests.lab.traffic import first_answer
from tests.lab.verbs import in_status

pytestmark = [
    pytest.mark.long,
    pytest.mark.timeout(400),
    pytest.mark.skipif(SCALE == 1, reason="only the guest's clock is nobody else's"),
]

YEAR = 365 * 86_400


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[list[Node]]:
    """Two VMs, whose clock is the guest's; it is right again at the end."""
    with network(tmp_path, 2, "ck") as nodes:
        configure(nodes, [])
        start(nodes)
        began, real = time.monotonic(), time.time()
        try:
            yield nodes
        finally:
            time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - began)


def test_a_clock_a_year_ahead(pair: list[Node]) -> None:
    """The certificates seem to have expired: status and log say of the clock first that it is
    wrong, and by whose word. Set right, all is well without anybody's help."""
    a, b = pair
    first_answer(a, B)
    time.clock_settime(time.CLOCK_REALTIME, time.time() + YEAR)

    for node in pair:
        clock = in_status(
            node, "clock-wrong", "clock seems wrong: the clock says ", "compare it with"
        )
        in_status(node, "certificate-expired", "compare the clock with another VM's first")
        shown = node.ask("status").stdout
        assert shown.index("clock-wrong: ") < shown.index("certificate-expired: ")
        assert time.strftime("%Y-", time.gmtime()) in clock["message"]
    # What is there goes on.
    first_answer(b, A)

    time.clock_settime(time.CLOCK_REALTIME, time.time() - YEAR)
    for node in pair:
        node.settled()
    first_answer(a, B)
