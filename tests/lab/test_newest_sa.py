"""Which of two SAs with one peer the kernel sends on: what core/duplicates.py builds on."""

import asyncio
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.duplicates import endings
from ipsec_agent.core.observed import Charon, SecurityAssociation
from ipsec_agent.core.steps import TerminateSa
from ipsec_agent.host.xfrm import open_xfrm
from tests.charon.nodes import Node, ips, network
from tests.core.test_orphans import PROCESS, child_sa, ike_sa
from tests.lab.deployment import A, B
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.esp, pytest.mark.timeout(120)]

FIRST, SECOND = 0xC0000001, 0xC0000002
KEY = "0x" + "01" * 20
SENT = 5


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A VM without an agent that encrypts to another."""
    with network(tmp_path, 2, "nw") as nodes:
        policy = f"src {A}/32 dst {B}/32 dir out tmpl proto esp reqid 7 mode transport"
        ips(f"xfrm policy add {policy}", netns=nodes[0].name)
        yield nodes[0]


def states(node: Node) -> tuple[SecurityAssociation, ...]:
    """The SAs as the agent reads them."""

    async def read() -> tuple[SecurityAssociation, ...]:
        async with open_xfrm() as xfrm:
            return await xfrm.states()

    with inside(node.name):
        return asyncio.run(read())


def in_one_second(node: Node, *spis: int) -> tuple[SecurityAssociation, ...]:
    """Install SAs towards B, one right after the other, and read them."""
    for _ in range(10):
        ips(
            "xfrm state flush",
            *(
                f"xfrm state add src {A} dst {B} proto esp spi {spi:#x} reqid 7 mode transport"
                f" aead rfc4106(gcm(aes)) {KEY} 128"
                for spi in spis
            ),
            netns=node.name,
        )
        found = states(node)
        if len({state.added for state in found}) == 1:
            return found
    raise AssertionError("never in one second")


@pytest.mark.parametrize("order", [(FIRST, SECOND), (SECOND, FIRST)])
def test_the_newest(node: Node, order: tuple[int, int]) -> None:
    """The one that was installed last, also within one second, when charon numbers it lower."""
    both = in_one_second(node, *order)
    node.send(B, SENT)

    used = {state.spi: state.packets for state in states(node)}
    charon = Charon(PROCESS, sas=(ike_sa(1, child_sa(11, FIRST)), ike_sa(2, child_sa(12, SECOND))))
    (step,) = endings(charon, both)

    assert used == {order[0]: 0, order[1]: SENT}
    assert isinstance(step, TerminateSa)
    assert step.unique_id == (1 if order[0] == FIRST else 2)
