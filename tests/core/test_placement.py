"""Where the VM stands: found where unambiguous, refused with the candidates where not."""

from ipaddress import ip_address, ip_network

import pytest

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.observed import Link, NetworkFacts, OwnAddress
from ipsec_agent.core.placement import place
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import ConfigError

LISTS = Promise((ip_network("10.0.0.0/16"),), (ip_network("10.0.9.0/24"),))
LINKS = (
    Link(1, "lo", 65536, up=True),
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


def test_default_route_decides() -> None:
    """Of two links the one of the default route bears the VM's address."""
    placement = place(AgentConfig(), LISTS, facts(("10.0.0.5", 2), ("10.0.0.6", 3), default=(3,)))

    assert placement.address == ip_address("10.0.0.6")
    assert placement.addresses == (ip_address("10.0.0.6"),)


def test_listed_address_is_preferred() -> None:
    """An address in one of the lists is preferred to one in neither."""
    placement = place(AgentConfig(), LISTS, facts(("192.0.2.1", 2), ("10.0.0.6", 3)))

    assert placement.address == ip_address("10.0.0.6")


def test_ambiguous() -> None:
    """Two candidates on two links are refused, and both named."""
    with pytest.raises(ConfigError) as caught:
        place(AgentConfig(), LISTS, facts(("10.0.0.5", 2), ("10.0.0.6", 3)))

    assert "10.0.0.5, 10.0.0.6" in caught.value.message
    assert caught.value.hint == "write agent.address: 10.0.0.5, or whichever is right"


def test_interface() -> None:
    """agent.interface names the link; its other addresses are own ones, too."""
    placement = place(
        AgentConfig(interface="eth1"),
        LISTS,
        facts(("10.0.0.5", 2), ("10.0.0.6", 3), ("10.0.0.7", 3)),
    )

    assert placement.addresses == (ip_address("10.0.0.6"), ip_address("10.0.0.7"))


def test_interface_absent() -> None:
    """An interface that does not exist is refused with those that do."""
    with pytest.raises(ConfigError) as caught:
        place(AgentConfig(interface="ens5"), LISTS, facts(("10.0.0.5", 2)))

    assert caught.value.message == "agent.interface: there is no link ens5 on this VM"
    assert caught.value.hint == "its links are eth0, eth1"


def test_no_address() -> None:
    """A VM without any address is told what to do."""
    with pytest.raises(ConfigError) as caught:
        place(AgentConfig(), LISTS, facts())

    assert caught.value.message == "there is no address on this VM that could be this VM's"


def test_address_elsewhere() -> None:
    """A configured address that no link bears is kept, and said to be absent."""
    placement = place(AgentConfig(address=ip_address("10.0.0.99")), LISTS, facts(("10.0.0.5", 2)))

    assert placement.addresses == (ip_address("10.0.0.99"),)
    assert not placement.present


def test_uplinks_by_name() -> None:
    """agent.uplinks decides alone, and brings its links' addresses."""
    placement = place(
        AgentConfig(address=ip_address("10.0.0.5"), uplinks=("eth0", "eth1")),
        LISTS,
        facts(("10.0.0.5", 2), ("10.0.0.6", 3)),
    )

    assert placement.addresses == (ip_address("10.0.0.5"), ip_address("10.0.0.6"))
