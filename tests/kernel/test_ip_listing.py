"""The addresses and gateways that the program ip lists are those that netlink tells."""

from collections.abc import Callable

import pytest

from ipsec_agent.errors import KernelError
from ipsec_agent.host.ip_listing import read_addresses
from ipsec_agent.host.links import open_links

pytestmark = pytest.mark.kernel


async def test_the_same_as_by_netlink(namespace: Callable[..., str]) -> None:
    """Both families, several links, a gateway of the other family, and one route with two ways."""
    for link, *addresses in (
        ("d0", "10.77.0.1/16", "10.77.0.3/16", "fd77::1/64"),
        ("d1", "192.0.2.1/24"),
    ):
        namespace("ip", "link", "add", link, "type", "veth", "peer", f"{link}-peer")
        for end in (link, f"{link}-peer"):
            namespace("ip", "link", "set", end, "up")
        for address in addresses:
            nodad = ["nodad"] if ":" in address else []
            namespace("ip", "addr", "add", address, "dev", link, *nodad)
    namespace("ip", "-4", "route", "add", "default", "via", "inet6", "fd77::9", "dev", "d0")
    namespace("ip", "-6", "route", "add", "default", "via", "fd77::8")
    hops = ("nexthop", "via", "10.77.0.9", "nexthop", "via", "192.0.2.9")
    namespace("ip", "route", "add", "default", "metric", "9", *hops)

    found = read_addresses()

    async with open_links() as links:
        facts = await links.facts()
    assert {(one.address, one.prefix, one.link) for one in found.addresses} == {
        (one.address, one.prefix, one.link) for one in facts.addresses
    }
    assert set(found.gateways) == set(facts.gateways)
    assert len(found.gateways) == 4
    assert set(found.default_links) == set(facts.default_links)
    assert len(found.default_links) == 2


def test_no_default_route(namespace: Callable[..., str]) -> None:
    """There is no gateway, and that is no error."""
    found = read_addresses()

    assert [str(one.address) for one in found.addresses] == ["127.0.0.1", "::1"]
    assert found.gateways == ()


def test_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, and what to install."""
    monkeypatch.setattr("ipsec_agent.host.program.PLACES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(KernelError, match="the program ip is not installed") as caught:
        read_addresses()

    assert caught.value.hint == "apt install iproute2"
