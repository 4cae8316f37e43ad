"""Links may have names that no text for nft can have: the tables load all the same."""

import socket
from collections.abc import Iterator

import pytest

from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.model import LinkId
from ipsec_agent.host.nft import Nft
from tests.kernel.guard_lab import GUARD, A, flow_table, namespaces, run
from tests.lab.namespaces import inside

pytestmark = pytest.mark.kernel

TEXT = ruleset(GUARD)

NAMES = ('a"b', '"};reset', "a*", "*", "a\\*", "a\\", "a}b", "$x;#@", "äß€", "s{1}", "'")


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """A fresh lab for each test, and the test itself inside of VM A, with a veth of each name."""
    with namespaces(), inside(A):
        for number, name in enumerate(NAMES):
            run("ip", "link", "add", name, "type", "veth", "peer", "name", f"peer{number}")
        yield


async def test_exempt() -> None:
    """Each is exempt under its own name, and no other link is: loaded by nft, put back without it,
    and changed.
    """
    links = tuple(sorted(LinkId(socket.if_nametoindex(name), name) for name in NAMES))
    assert await told(Nft(), links) == links
    nft = Nft()
    await nft.load(TEXT)
    assert await told(nft, links) == links
    nft.exempt(links[:3])
    table = await nft.read()
    assert table is not None
    assert table.exempt == links[:3]


async def told(nft: Nft, links: tuple[LinkId, ...]) -> tuple[LinkId, ...]:
    """The exempt links of the table, once it is loaded; it is known as what it is."""
    await nft.load(TEXT, links, (4789,))
    table = await nft.read()
    assert table is not None
    assert (table.mark, table.overlay_ports) == (mark(TEXT), (4789,))
    return table.exempt


def test_flow_rules() -> None:
    """Every link that nft can name is filtered, whatever others are called."""
    run("nft", "-f", "-", text=flow_table("lo", *NAMES))
    hooks = [
        line for line in run("nft", "list table netdev ipsec_agent").splitlines() if "hook" in line
    ]
    assert len(hooks) == 2
    for name in ("lo", "a}b", "$x;#@", "äß€", "'"):
        assert all(name in one for one in hooks)
    assert not any("*" in one for one in hooks)
