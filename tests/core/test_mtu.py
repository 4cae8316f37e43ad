"""What ESP costs, what fits, and which links do not."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.mtu import (
    ESP_HEADER,
    IP_HEADER,
    TRAILER,
    UDP_HEADER,
    Carriage,
    Suite,
    judge_links,
    largest,
    required,
    suites,
    wanted,
)
from ipsec_agent.core.observed import Link, NetworkFacts

GCM = Suite(iv=8, alignment=4, icv=16)
CBC = Suite(iv=16, alignment=16, icv=16)
PLAIN = Carriage((GCM,))

ETH0 = Link(2, "eth0", 1500, up=True)
DOCKER0 = Link(3, "docker0", 1500, up=True, kind="bridge")
VETH = Link(4, "veth1", 1500, up=True, kind="veth", master=3)


def on_wire(packet: int, suite: Suite, *, version: int = 4, encapsulated: bool = False) -> int:
    """Bytes of an IP packet on the wire.

    Args:
        packet: its bytes in clear, with the IP header.
    """
    header = IP_HEADER[version]
    inner = packet - header + TRAILER
    aligned = -(-inner // suite.alignment) * suite.alignment
    udp = UDP_HEADER if encapsulated else 0
    return header + udp + ESP_HEADER + suite.iv + aligned + suite.icv


def network(*links: Link) -> NetworkFacts:
    """A VM with these links beside the loopback."""
    return NetworkFacts((Link(1, "lo", 65536, up=True, loopback=True), *links))


def misfits(*links: Link, carriage: Carriage = PLAIN) -> dict[str, int]:
    """What each link that does not fit may have, behind eth0."""
    found = judge_links((ETH0,), network(ETH0, *links), carriage)
    return {misfit.link.name: misfit.fits for misfit in found}


def test_measured() -> None:
    """AES-GCM-16 costs what tcpdump showed: 34 to 37 bytes, in UDP 42 to 45, in IPv6 the same."""
    sizes = range(60, 1460)
    for version in (4, 6):
        for encapsulated, costs in ((False, range(34, 38)), (True, range(42, 46))):
            assert {
                on_wire(size, GCM, version=version, encapsulated=encapsulated) - size
                for size in sizes
            } == set(costs)
    assert on_wire(84, GCM) == 120


@pytest.mark.parametrize(
    ("mtu", "encapsulated", "inner"),
    [(1500, False, 1466), (1500, True, 1458), (9001, False, 8966), (1460, False, 1426)],
)
def test_largest(mtu: int, encapsulated: bool, inner: int) -> None:
    """The largest packet is what the kernel itself says that it takes."""
    for version in (4, 6):
        assert largest(mtu, GCM, version=version, encapsulated=encapsulated) == inner


@given(
    st.integers(200, 66000),
    st.sampled_from([GCM, CBC, Suite(8, 8, 12), Suite(8, 4, 32)]),
    st.sampled_from([4, 6]),
    st.booleans(),
)
def test_largest_is_exact(mtu: int, suite: Suite, version: int, encapsulated: bool) -> None:
    """The largest packet fits, and one byte more does not."""
    inner = largest(mtu, suite, version=version, encapsulated=encapsulated)

    assert on_wire(inner, suite, version=version, encapsulated=encapsulated) <= mtu
    assert on_wire(inner + 1, suite, version=version, encapsulated=encapsulated) > mtu


def test_nothing_fits() -> None:
    """An MTU that the headers fill already carries nothing."""
    assert largest(53, GCM) == 0
    assert largest(56, GCM) == 22


@pytest.mark.parametrize(
    ("proposal", "suite"),
    [
        ("aes128gcm16", GCM),
        ("aes256gcm", GCM),
        ("aes128gcm128-ecp256-esn", GCM),
        ("chacha20poly1305", GCM),
        ("aes128gcm8", Suite(8, 4, 8)),
        ("aes128ccm96", Suite(8, 4, 12)),
        ("aes128-sha256-modp2048", CBC),
        ("aes256-sha512", Suite(16, 16, 32)),
        ("aes-sha1", Suite(16, 16, 12)),
        ("aes128ctr-sha2_384", Suite(8, 4, 24)),
        ("camellia256-aesxcbc", Suite(16, 16, 12)),
        ("3des-sha1_160", Suite(8, 8, 20)),
        ("aes128-aes128ctr-sha1-sha512", Suite(16, 16, 32)),
    ],
)
def test_suites(proposal: str, suite: Suite) -> None:
    """Each proposal costs what its costliest algorithms do."""
    assert suites((proposal,)) == (suite,)


def test_default_suite() -> None:
    """Without proposals it is the default's, AES-GCM."""
    assert suites(()) == (GCM,)


def test_required_is_the_least() -> None:
    """Whatever a peer chooses, in IPv4 or IPv6, must fit."""
    both = Carriage((GCM, CBC), (4, 6))
    assert required(1500, both) == min(
        largest(1500, suite, version=version) for suite in (GCM, CBC) for version in (4, 6)
    )
    assert required(1500, both) < required(1500, PLAIN) == 1466


def test_containers_with_the_mtu_of_the_vm() -> None:
    """A bridge and its veth of 1500 behind 1500 do not fit, and each names its remedy."""
    found = judge_links((ETH0,), network(ETH0, DOCKER0, VETH), PLAIN)

    assert [misfit.remedy for misfit in found] == [
        "ip link set dev docker0 mtu 1466",
        "ip link set dev veth1 mtu 1466",
    ]
    # A port before its bridge: a bridge takes the least of its ports by itself.
    assert wanted(found, may_enter=True) == ((4, 1466), (3, 1466))


def test_container_that_cannot_be_entered() -> None:
    """The VM's end of a veth alone is left alone: it would drop what the container still sends."""
    inner = replace(VETH, namespace=0)
    found = judge_links((ETH0,), network(ETH0, DOCKER0, inner, replace(VETH, index=9)), PLAIN)

    assert wanted(found, may_enter=False) == ((9, 1466), (3, 1466))
    assert wanted(found, may_enter=True) == ((4, 1466), (9, 1466), (3, 1466))


@pytest.mark.parametrize(("mtu", "fits"), [(1466, True), (1467, False), (1400, True)])
def test_exact_limit(mtu: int, fits: bool) -> None:
    """The limit is exact, and what is below it is left alone."""
    assert misfits(replace(VETH, mtu=mtu)) == ({} if fits else {"veth1": 1466})


def test_guide() -> None:
    """The guide's 100 bytes between VM and container, and its 1354 and 1438, all fit."""
    for vm, container in ((1500, 1400), (1460, 1354), (1454, 1354), (1500, 1438), (1600, 1500)):
        found = judge_links(
            (replace(ETH0, mtu=vm),),
            network(replace(ETH0, mtu=vm), replace(VETH, mtu=container)),
            Carriage((GCM,), (4, 6), encapsulated=True),
        )
        assert found == ()


def test_encapsulation_costs_eight() -> None:
    """With ESP in UDP the limit is 8 bytes lower."""
    udp = replace(PLAIN, encapsulated=True)
    assert misfits(replace(VETH, mtu=1466), carriage=udp) == {"veth1": 1458}


def test_smallest_uplink_counts() -> None:
    """With two uplinks the smaller one decides, and neither is touched."""
    small = Link(5, "eth1", 1400, up=True)
    (found,) = judge_links((ETH0, small), network(ETH0, small, VETH), PLAIN)
    assert (found.fits, found.uplink) == (1366, small)


@pytest.mark.parametrize(
    "link",
    [
        Link(5, "eth1", 9000, up=True),
        Link(5, "eth0.7", 1500, up=True, kind="vlan"),
        Link(5, "wlan0", 1500, up=True, kind=""),
    ],
)
def test_no_business_of_ours(link: Link) -> None:
    """A second NIC and a VLAN are not judged."""
    assert misfits(link) == {}


def test_bridge_of_the_uplink() -> None:
    """What is bridged beside the uplink has addresses of its own on the wire."""
    bridge = Link(6, "br0", 1500, up=True, kind="bridge")
    port = replace(ETH0, master=6)
    guest = Link(7, "vnet0", 1500, up=True, kind="tun", master=6)
    everything = network(port, bridge, guest, VETH)

    for uplink in (port, bridge):
        found = judge_links((uplink,), everything, PLAIN)
        assert [misfit.link.name for misfit in found] == ["veth1"]


@pytest.mark.parametrize(("version", "fits"), [(4, 1416), (6, 1396)])
def test_overlay(version: int, fits: int) -> None:
    """The VM's own tunnel puts its header around a packet before ESP does."""
    vtep = Link(8, "silk-vtep", 1450, up=True, kind="vxlan")
    assert misfits(vtep, carriage=Carriage((GCM,), (version,))) == {"silk-vtep": fits}
    assert on_wire(fits + 30 + (20 if version == 4 else 40), GCM, version=version) <= 1500


def test_idle() -> None:
    """A bridge without a port, as Docker leaves it, and a link that is down lose nothing yet."""
    down = replace(VETH, index=9, name="veth2", master=0, up=False)
    for links, idle in (((DOCKER0,), [True]), ((DOCKER0, VETH, down), [False, False, True])):
        found = judge_links((ETH0,), network(ETH0, *links), PLAIN)
        assert [misfit.idle for misfit in found] == idle


def test_without_uplinks() -> None:
    """While no uplink is known nothing is judged, and nothing is lowered."""
    assert judge_links((), network(ETH0, VETH), PLAIN) == ()


@given(
    st.lists(
        st.builds(
            Link,
            st.integers(3, 9),
            st.sampled_from(["a", "b", "c"]),
            st.integers(68, 10000),
            st.booleans(),
            st.sampled_from(["", "veth", "bridge", "vlan", "tun", "vxlan"]),
            st.integers(0, 9),
        ),
        max_size=6,
        unique_by=lambda link: link.index,
    ),
    st.integers(600, 9001),
)
def test_the_remedy_is_enough(links: list[Link], mtu: int) -> None:
    """Once each link has what is wanted nothing is left to do; nothing is raised, no uplink set."""
    uplink = replace(ETH0, mtu=mtu)
    found = judge_links((uplink,), network(uplink, *links), PLAIN)
    lower = dict(wanted(found, may_enter=True))

    assert uplink.index not in lower
    assert all(lower[link.index] < link.mtu for link in links if link.index in lower)
    after = [replace(link, mtu=lower.get(link.index, link.mtu)) for link in links]
    assert judge_links((uplink,), network(uplink, *after), PLAIN) == ()


def test_an_odd_name() -> None:
    """The command is one that a shell takes."""
    odd = replace(VETH, name="a b;c")

    (misfit,) = judge_links((ETH0,), network(ETH0, odd), PLAIN)
    assert misfit.remedy == "ip link set dev 'a b;c' mtu 1466"
