"""From config and placement to connections and policies."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, Outside
from ipsec_agent.core.desired import BROADCAST_NAME, desired, policies
from ipsec_agent.core.model import Action, Address, Desired, Direction, Role
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import ConfigError
from tests.configs import config


def at(*texts: str) -> Placement:
    """A VM with these addresses."""
    found: tuple[Address, ...] = tuple(ip_address(text) for text in texts)
    return Placement(found[0], found)


def names(wish: Desired) -> list[str]:
    """The names of the connections, in order."""
    return [connection.name for connection in wish.connections]


def verdict(wish: Desired, near: Address, far: Address) -> bool:
    """Whether charon's policies for this wish encrypt from near to far: PASS always wins."""
    matching = [
        policy
        for policy in wish.policies
        if policy.selector.direction is Direction.OUT
        and policy.selector.protocol == 0
        and near in policy.selector.source
        and far in policy.selector.destination
    ]
    return bool(matching) and all(policy.action is Action.ENCRYPT for policy in matching)


subnets = st.lists(
    st.builds(
        lambda n, length: str(ip_network(((10 << 24) + n, length), strict=False)),
        st.integers(0, 255),
        st.integers(24, 32),
    ),
    min_size=1,
    max_size=4,
).map(tuple)
vms = st.integers(0, 255).map(lambda n: ip_address((10 << 24) + n))


@given(subnets, subnets, vms, vms)
def test_both_ends_agree(
    ipsec: tuple[str, ...], no_ipsec: tuple[str, ...], one: Address, other: Address
) -> None:
    """For every pair of VMs under one config the policies of both say what the promise says."""
    settings = config(ipsec, no_ipsec, agent=AgentConfig(outside=Outside.CLEAR))
    lists = Promise.of(settings)
    if one == other:
        return

    there = verdict(desired(settings, at(str(one))), one, other)
    back = verdict(desired(settings, at(str(other))), other, one)

    if lists.encrypts(one, other):
        assert there
        assert back
    else:
        # A trap may reach an address that the peer's own wish leaves clear only where it is exempt.
        assert not (there and back)


@given(subnets, subnets, vms, vms)
def test_clear_peers_are_never_trapped(
    ipsec: tuple[str, ...], no_ipsec: tuple[str, ...], one: Address, other: Address
) -> None:
    """A pair that must not encrypt is trapped by neither side."""
    settings = config(ipsec, no_ipsec, agent=AgentConfig(outside=Outside.CLEAR))
    if one == other or Promise.of(settings).encrypts(one, other):
        return

    assert not verdict(desired(settings, at(str(one))), one, other)


def test_names_and_order() -> None:
    """Names are those operators know; shunts stand before traps."""
    wish = desired(config(("10.0.0.0/16",), ("10.0.0.10/32",)), at("10.0.0.5"))

    assert names(wish) == ["no-ipsec-10.0.0.10/32", "ipsec-10.0.0.0/16"]
    assert wish.role is Role.ENCRYPT


def test_host_bits_and_duplicates() -> None:
    """10.0.1.1/20 and 10.0.0.0/20 are the same subnet, shown normalised."""
    wish = desired(config(("10.0.1.1/20", "10.0.0.0/20")), at("10.0.0.5"))

    assert names(wish) == ["ipsec-10.0.0.0/20"]


def test_trap_policies() -> None:
    """A trap shows out and in, from the VM's own address, and not for forwarded packets."""
    wish = desired(config(), at("10.0.0.5"))

    shown = {
        (p.selector.direction, p.selector.source, p.selector.destination) for p in wish.policies
    }

    own, far = ip_network("10.0.0.5/32"), ip_network("10.0.0.0/16")
    assert shown == {(Direction.OUT, own, far), (Direction.IN, far, own)}


def test_several_addresses() -> None:
    """Each own address that encrypts has a child; one in no-ipsec has none."""
    wish = desired(
        config(("10.0.0.0/16",), ("10.0.9.0/24",)), at("10.0.0.5", "10.0.0.6", "10.0.9.1")
    )

    trap = next(c for c in wish.connections if c.action is Action.ENCRYPT)
    assert [child.name for child in trap.children] == [
        "ipsec-10.0.0.0/16-10.0.0.5",
        "ipsec-10.0.0.0/16-10.0.0.6",
    ]
    assert any("10.0.9.1 is in no_ipsec_subnets" in note for note in wish.notes)


def test_own_address_exempt() -> None:
    """A VM in a no-ipsec subnet has no trap, speaks clear and says so."""
    wish = desired(config(("10.0.0.0/16",), ("10.0.9.0/24",)), at("10.0.9.1"))

    assert wish.role is Role.CLEAR
    assert names(wish) == ["no-ipsec-10.0.9.0/24"]
    assert wish.notes == (
        "10.0.9.1 is in no_ipsec_subnets (10.0.9.0/24): it speaks clear with every VM",
    )


def test_outside_is_refused() -> None:
    """An address in neither list is refused, and the remedy named."""
    with pytest.raises(ConfigError) as caught:
        desired(config(), at("192.0.2.1"))

    assert (
        caught.value.message
        == "this VM's address 192.0.2.1 is in neither ipsec_subnets nor no_ipsec_subnets"
    )
    assert "agent.outside: clear" in caught.value.hint


def test_outside_while_a_link_has_no_address() -> None:
    """It may be DHCP that is late: nobody is told to open the VM."""
    with pytest.raises(ConfigError) as caught:
        desired(config(), replace(at("192.0.2.1"), waiting=("eth0",)))

    assert caught.value.message == (
        "this VM's address 192.0.2.1 is in neither ipsec_subnets nor no_ipsec_subnets,"
        " or eth0 has no address yet"
    )
    assert "clear" not in caught.value.hint
    assert "eth0" in caught.value.hint


def test_outside_clear() -> None:
    """With agent.outside: clear the VM speaks clear with everyone, and says so."""
    wish = desired(config(agent=AgentConfig(outside=Outside.CLEAR)), at("192.0.2.1"))

    assert wish.role is Role.CLEAR
    assert wish.notes == ("192.0.2.1 is in neither list: it speaks clear with every VM",)


def test_ipv6() -> None:
    """IPv6 brings shunts for neighbour discovery and for the VM's traffic to itself."""
    wish = desired(config(("fd00::/64",)), at("fd00::5"))

    assert names(wish) == [
        "no-ipsec-neighbour-discovery",
        "no-ipsec-self",
        "ipsec-fd00::/64",
    ]
    types = {
        (p.selector.protocol, p.selector.source_port, p.selector.destination_port)
        for p in policies(wish.connections[0])
    }
    assert types == {(58, 135, 0), (58, 136, 0)}
    assert {p.selector.source for p in policies(wish.connections[1])} == {ip_network("fd00::5/128")}


def test_other_family() -> None:
    """A subnet of a family in which the VM has no address is not enforced, and noted."""
    wish = desired(config(("10.0.0.0/16", "fd00::/64")), at("10.0.0.5"))

    assert names(wish) == ["ipsec-10.0.0.0/16"]
    assert "fd00::/64 is not enforced here" in wish.notes[0]


def test_covered_subnet() -> None:
    """A subnet that no_ipsec_subnets cover whole has no trap, and a note."""
    wish = desired(config(("10.0.0.0/16", "10.0.9.0/28"), ("10.0.9.0/24",)), at("10.0.0.5"))

    assert names(wish) == ["no-ipsec-10.0.9.0/24", "ipsec-10.0.0.0/16"]
    assert wish.notes == ("no address of 10.0.9.0/28 is encrypted: no_ipsec_subnets cover it",)


def test_settings_reach_the_trap() -> None:
    """What the operator asked of IKE and ESP stands in each trap, and in no shunt."""
    wish = desired(
        replace(config(no_ipsec=("10.0.0.9/32",)), esp_proposals=("aes256gcm16",)), at("10.0.0.5")
    )

    shunt, trap = wish.connections
    assert shunt.settings is None
    assert trap.settings is not None
    assert trap.settings.esp_proposals == ("aes256gcm16",)


def test_a_broadcast_starts_no_ike() -> None:
    """Only where a trap would catch it, and a guard drops what the shunt lets through."""
    own, all_of_us = ip_address("10.0.0.5"), ip_address("10.0.0.255")
    here = Placement(own, (own,), broadcasts=(all_of_us,))

    def shunts(wish: Desired) -> list[str]:
        return [str(one.remote) for one in wish.connections if one.name == BROADCAST_NAME]

    assert shunts(desired(config(), here)) == ["10.0.0.255/32"]
    assert shunts(desired(config(), here, guarded=False)) == []
    assert shunts(desired(config(no_ipsec=("10.0.0.128/25",)), here)) == []
    assert shunts(desired(config(no_ipsec=("10.0.0.5/32",)), here)) == []
