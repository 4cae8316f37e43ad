"""Where the VM stands: by its addresses, never by its routes."""

from ipaddress import ip_address, ip_network

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.observed import Link, NetworkFacts, OwnAddress
from ipsec_agent.core.placement import place, steady
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import ConfigError

LISTS = Promise((ip_network("10.0.0.0/16"),), (ip_network("10.0.9.0/24"),))
LINKS = (
    Link(1, "lo", 65536, up=True, loopback=True),
    Link(2, "eth0", 1500, up=True),
    Link(3, "eth1", 1500, up=True),
)


def facts(*own: tuple[str, int], default: tuple[int, ...] = ()) -> NetworkFacts:
    """A VM with two NICs and these addresses, each with its link's index."""
    return NetworkFacts(
        LINKS, tuple(OwnAddress(ip_address(text), 24, link) for text, link in own), default
    )


def test_only_address() -> None:
    """The only usable address is the VM's; loopback and link-local do not count."""
    placement = place(
        AgentConfig(), LISTS, facts(("127.0.0.1", 1), ("fe80::1", 2), ("10.0.0.5", 2))
    )

    assert placement.address == ip_address("10.0.0.5")
    assert [link.name for link in placement.uplinks] == ["eth0"]
    assert placement.present


def test_routes_decide_nothing() -> None:
    """Every own address has its place, and the main one is the same whatever the routes are."""
    addresses = (("10.0.0.6", 3), ("10.0.0.5", 2), ("192.0.2.7", 3))
    for default in ((), (2,), (3,), (3, 2)):
        placement = place(AgentConfig(), LISTS, facts(*addresses, default=default))

        assert [str(one) for one in placement.addresses] == ["10.0.0.5", "10.0.0.6", "192.0.2.7"]
        assert [link.name for link in placement.uplinks] == ["eth0", "eth1"]
        assert [link.name for link in placement.guarded] == ["eth0", "eth1"]


def test_order_of_addresses() -> None:
    """Encrypted, in a no-ipsec subnet, in neither list; lo's behind those of other links."""
    placement = place(
        AgentConfig(),
        LISTS,
        facts(("10.0.0.9", 1), ("192.0.2.1", 2), ("10.0.9.6", 3), ("10.0.0.6", 3), default=(2,)),
    )

    assert [str(one) for one in placement.addresses] == [
        "10.0.0.6",
        "10.0.0.9",
        "10.0.9.6",
        "192.0.2.1",
    ]


def test_an_address_on_the_loopback_link() -> None:
    """Routing on the host: the VM's address is on lo, and every other link is judged."""
    placement = place(AgentConfig(), LISTS, facts(("10.0.0.5", 1), ("192.0.2.1", 2), default=(2,)))

    assert placement.address == ip_address("10.0.0.5")
    assert placement.present
    assert [link.name for link in placement.guarded] == ["eth0", "eth1"]


def test_links_that_wait_for_their_address() -> None:
    """Network cards without one; neither ports, nor what another link is on, nor tunnels."""
    more = (
        Link(4, "bond0", 1500, up=True, kind="bond"),
        Link(5, "eth2", 1500, up=True, master=4),
        Link(6, "eth0.7", 1500, up=True, kind="vlan", lower=2),
        Link(7, "tun0", 1500, up=True, kind="tun"),
        Link(8, "docker0", 1500, up=True, kind="bridge"),
    )
    before = facts(("10.99.0.1", 1), ("fe80::1", 3))
    dhcp_is_late = replace(before, links=(*LINKS, *more))

    assert place(AgentConfig(), LISTS, before).waiting == ("eth0", "eth1")
    assert place(AgentConfig(), LISTS, dhcp_is_late).waiting == ("eth1", "bond0", "eth0.7")
    assert not place(AgentConfig(address=ip_address("10.0.0.5")), LISTS, dhcp_is_late).waiting
    after = facts(("10.99.0.1", 1), ("10.0.0.5", 2), ("10.0.0.6", 3))
    assert not place(AgentConfig(), LISTS, after).waiting


def test_of_unlisted_addresses_the_default_routes_comes_first() -> None:
    """None of them encrypts; the one shown first is what an operator knows the VM by."""
    placement = place(AgentConfig(), LISTS, facts(("192.0.2.1", 2), ("192.0.2.2", 3), default=(3,)))

    assert placement.address == ip_address("192.0.2.2")


def test_a_containers_bridge_is_not_the_vm() -> None:
    """eth0 waits for its address, and the bridge's is inside the encrypted subnet: no place."""
    bridge = Link(4, "cni0", 1500, up=True, kind="bridge")
    waiting = replace(
        facts(("10.0.200.1", 4)),
        links=(*LINKS, bridge),
    )

    with pytest.raises(ConfigError, match="no address on this VM"):
        place(AgentConfig(), LISTS, waiting)
    there = place(
        AgentConfig(),
        LISTS,
        replace(waiting, addresses=(*waiting.addresses, OwnAddress(ip_address("10.0.0.5"), 24, 2))),
    )
    assert there.addresses == (ip_address("10.0.0.5"),)


def test_what_was_encrypted_stays_so() -> None:
    """Where the listed address is gone for a moment, an unlisted one takes no encryption away."""
    before = place(AgentConfig(), LISTS, facts(("10.0.0.5", 2), ("192.0.2.2", 3), default=(2,)))
    network = facts(("192.0.2.2", 3), default=(3,))
    found = place(AgentConfig(), LISTS, network)

    kept = steady(found, before, LISTS, network)

    assert kept.addresses == before.addresses
    assert not kept.present
    assert steady(found, None, LISTS, network) == found
    assert steady(before, found, LISTS, network) == before
    without = replace(network, links=tuple(link for link in LINKS if link.name != "eth0"))
    assert steady(found, before, LISTS, without) == found


def test_interface() -> None:
    """agent.interface names the link of the main address; the others are own ones, too."""
    placement = place(
        AgentConfig(interface="eth1"),
        LISTS,
        facts(("10.0.0.5", 2), ("10.0.0.6", 3), ("10.0.0.7", 3)),
    )

    assert [str(one) for one in placement.addresses] == ["10.0.0.6", "10.0.0.5", "10.0.0.7"]


def test_a_link_by_another_name() -> None:
    """`ip link property` gives more names to a link; the config may use each."""
    network = facts(("10.0.0.5", 2), ("10.0.0.6", 3))
    named = replace(network.links[2], altnames=("enp0s4", "ens4"))
    network = replace(network, links=(*network.links[:2], named))

    found = place(AgentConfig(interface="ens4"), LISTS, network)
    assert str(found.address) == "10.0.0.6"
    found = place(
        AgentConfig(uplinks=("enp0s4",)), LISTS, replace(network, addresses=network.addresses[:1])
    )
    assert named in found.uplinks


def test_interface_absent() -> None:
    """An interface that does not exist is refused with those that do."""
    with pytest.raises(ConfigError) as caught:
        place(AgentConfig(interface="ens5"), LISTS, facts(("10.0.0.5", 2)))

    assert caught.value.message == "agent.interface: this VM has no link ens5"
    assert caught.value.hint == "its links are eth0, eth1"


def test_no_address() -> None:
    """A VM without any address is told what to do."""
    with pytest.raises(ConfigError) as caught:
        place(AgentConfig(), LISTS, facts())

    assert caught.value.message == "no address on this VM can be this VM's"


def test_an_address_that_is_gone() -> None:
    """The one that the VM had is named, and nobody is told to start later."""
    before = place(AgentConfig(), LISTS, facts(("10.0.0.5", 2)))
    with pytest.raises(ConfigError) as caught:
        place(AgentConfig(), LISTS, facts(), before)

    assert caught.value.message.startswith("this VM's address 10.0.0.5 is gone, and no other")
    assert caught.value.hint.startswith("bring the link up, or add the address to it")


def test_address_elsewhere() -> None:
    """A configured address that no link bears is kept, and said to be absent."""
    placement = place(AgentConfig(address=ip_address("10.0.0.99")), LISTS, facts(("10.0.0.5", 2)))

    assert placement.addresses == (ip_address("10.0.0.99"), ip_address("10.0.0.5"))
    assert not placement.present


def test_the_operators_uplinks() -> None:
    """They are judged, and their packets must fit; one that is missing may come later."""
    placement = place(
        AgentConfig(uplinks=("eth1", "eth7")), LISTS, facts(("10.0.0.5", 2), ("192.0.2.6", 3))
    )

    assert placement.addresses == (ip_address("10.0.0.5"), ip_address("192.0.2.6"))
    assert [link.name for link in placement.uplinks] == ["eth0", "eth1"]


def test_the_operators_inside() -> None:
    """A link that the operator says leads to containers has no address of the VM's."""
    placement = place(AgentConfig(inside=("eth1",)), LISTS, facts(("10.0.0.5", 2), ("10.0.0.6", 3)))

    assert placement.addresses == (ip_address("10.0.0.5"),)
    assert [link.name for link in placement.guarded] == ["eth0"]
    assert [(one.link.name, one.because) for one in placement.inside] == [
        ("eth1", "agent.inside names it")
    ]
