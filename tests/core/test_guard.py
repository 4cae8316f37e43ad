"""The guard judges exactly what the promise says, and only links that leave the VM."""

import itertools
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.guard import NEVER_A_PEER, Guard, exempt_links, explain, overlay_ports
from ipsec_agent.core.inside import Inside
from ipsec_agent.core.model import Address, LinkId, Network
from ipsec_agent.core.observed import Link, Tunnel
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.promise import Promise

# Small corners of both address spaces, so that random subnets overlap, nest and touch often.
CORNER4, CORNER6 = int(IPv4Address("10.0.0.0")), int(IPv6Address("fd00::"))


def _network(version: int, low: int, bits: int) -> Network:
    if version == 4:
        return ip_network((CORNER4 + low, 32 - bits), strict=False)
    return ip_network((CORNER6 + low, 128 - bits), strict=False)


def _address(version: int, low: int) -> Address:
    return IPv4Address(CORNER4 + low) if version == 4 else IPv6Address(CORNER6 + low)


versions = st.sampled_from([4, 6])
addresses = st.builds(_address, versions, st.integers(0, 255))
networks = st.builds(_network, versions, st.integers(0, 255), st.integers(0, 8)) | st.sampled_from(
    [ip_network("0.0.0.0/0"), ip_network("::/0")]
)
promises = st.builds(
    Promise, st.lists(networks, max_size=5).map(tuple), st.lists(networks, max_size=5).map(tuple)
)

UPLINK = Link(2, "eth0", 1500, up=True)
DOCKER0 = Inside(Link(3, "docker0", 1500, up=True, kind="bridge"), "of containers")
VETH1 = Inside(Link(9, "veth1", 1500, up=True, kind="veth", master=3), "of a container")
EMPTY = Inside(Link(11, "br0", 1500, up=True, kind="bridge"), "without a port", exempt=False)
PLACE = Placement(
    ip_address("10.0.0.1"),
    (ip_address("10.0.0.1"),),
    (UPLINK,),
    guarded=(UPLINK,),
    inside=(VETH1, DOCKER0, EMPTY),
)


@given(promises, addresses, addresses)
def test_judges_what_the_promise_encrypts(
    promise: Promise, source: Address, destination: Address
) -> None:
    """Both in some ipsec subnet, neither in any no-ipsec subnet: no more, no less."""
    # A packet has two addresses of one version.
    expected = source.version == destination.version and promise.encrypts(source, destination)

    assert expected == Guard(promise).judges(source, destination)
    assert expected == Guard(promise).judges(destination, source)


@given(promises, versions)
def test_ranges_are_sorted_and_never_touch(promise: Promise, version: int) -> None:
    """nftables refuses a set whose intervals overlap."""
    ranges = Guard(promise).outside(version)

    assert all(first <= last for first, last in ranges)
    assert all(end + 1 < start for (_, end), (start, _) in itertools.pairwise(ranges))


@given(promises)
def test_families_are_those_with_something_to_encrypt(promise: Promise) -> None:
    """A family of which no-ipsec leaves nothing is not looked at."""
    families = Guard(promise).families()

    for version in (4, 6):
        subnets = [network for network in promise.ipsec if network.version == version]
        if set(subnets) <= set(promise.covered):
            assert version not in families
        else:
            assert version in families


def test_what_no_vm_can_be_is_never_judged() -> None:
    """DHCP, multicast and link-local IPv6 work where everything is to be encrypted."""
    everything = Guard(Promise((ip_network("0.0.0.0/0"), ip_network("::/0")), ()))

    for network in NEVER_A_PEER:
        vm = ip_address("10.0.0.1" if network.version == 4 else "fd00::1")
        assert not everything.judges(vm, network[-1])
        assert not everything.judges(network[0], vm)
    assert everything.judges(ip_address("10.0.0.1"), ip_address("169.254.169.254"))


def test_inner_links_are_exempt() -> None:
    """Those that lead to containers; a bridge that carries nothing yet is not."""
    assert exempt_links(PLACE) == (LinkId(3, "docker0"), LinkId(9, "veth1"))


def test_an_unclear_place_exempts_nothing() -> None:
    """Without the VM's address every link is judged, as at boot."""
    assert exempt_links(replace(PLACE, present=False)) == ()
    first, *rest = PLACE.inside
    odd = replace(first, link=replace(first.link, name="a\N{REPLACEMENT CHARACTER}"))
    keys = exempt_links(replace(PLACE, inside=(odd, *rest)))
    assert set(keys) == set(exempt_links(PLACE)) - {first.key}, "its true name is not known"


def test_explained() -> None:
    """The sentences name the subnets and what passes."""
    promise = Promise((ip_network("10.0.0.0/8"),), (ip_network("10.9.0.0/16"),))

    text = " ".join(explain(Guard(promise, force_encapsulation=True)))

    assert "drops everything but IPsec between addresses of 10.0.0.0/8, except 10.9.0.0/16," in text
    assert "ESP in UDP" in text
    assert "counts, but does not drop" in explain(Guard(promise, enforce=False))[0]


def test_ports_of_tunnels_that_are_exempt() -> None:
    """Each once, of those that are inside; none while it is unclear where this VM stands."""
    tunnels = tuple(
        Inside(
            Link(20 + n, f"vx{n}", 1400, up=True, kind="vxlan", tunnel=Tunnel(port=port)),
            "judged below",
            exempt=exempt,
        )
        for n, (port, exempt) in enumerate(((8472, True), (4789, True), (8472, True), (9, False)))
    )
    place = replace(PLACE, inside=(*PLACE.inside, *tunnels))

    assert overlay_ports(place) == (4789, 8472)
    assert overlay_ports(replace(place, present=False)) == ()
    assert overlay_ports(PLACE) == ()
