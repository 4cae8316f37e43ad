"""Which links need no judging: each kind, and what takes it away."""

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from ipsec_agent.core.inside import OVERLAYS, Words, find_inside, own_ways
from ipsec_agent.core.observed import Link, Namespace, NetworkFacts, OwnAddress, Tunnel
from ipsec_agent.core.promise import Promise

LISTS = Promise((ip_network("10.0.0.0/8"), ip_network("fd00::/16")), (ip_network("10.9.0.0/16"),))
HERE, POD, OTHER = 9, 0, 1
"""Numbers of namespaces; the first is the VM's own."""

LO = Link(1, "lo", 65536, up=True, loopback=True)
ETH0 = Link(2, "eth0", 1500, up=True)
DOCKER0 = Link(3, "docker0", 1500, up=True, kind="bridge")
VETH = Link(4, "veth4", 1500, up=True, kind="veth", lower=2, namespace=POD)
INNER = Link(2, "eth0", 1500, up=True, kind="veth", lower=4, namespace=HERE)
INNER_LO = Link(1, "lo", 65536, up=True, loopback=True)
FAR = ip_address("10.0.0.9")
OWN = OwnAddress(ip_address("10.0.0.1"), 24, 2)


def link(index: int, kind: str, **more: object) -> Link:
    """A link of the VM."""
    return replace(Link(index, f"{kind or 'nic'}{index}", 1500, up=True, kind=kind), **more)


def facts(*links: Link, inner: tuple[Link, ...] = (INNER,), **more: object) -> NetworkFacts:
    """The VM with an uplink, and a container's namespace."""
    return replace(
        NetworkFacts(
            (LO, ETH0, *links),
            (OWN,),
            (2,),
            (),
            namespaces=(Namespace(POD, (INNER_LO, *inner)),),
            number=HERE,
        ),
        **more,
    )


def inside(network: NetworkFacts, **words: tuple[str, ...]) -> set[str]:
    """Names of the links that are inside."""
    return {one.link.name for one in find_inside(network, LISTS, Words(**words))}


def test_other_names() -> None:
    """What the operator says of a link by another name of it counts as well."""
    veth = replace(VETH, altnames=("to-the-pod",))
    there = facts(replace(DOCKER0, altnames=("jobs",)), veth)

    assert inside(there) == {"docker0", "veth4"}
    assert inside(there, uplinks=("to-the-pod",)) == {"docker0"}
    nic = facts(replace(link(5, ""), altnames=("jobs",)))
    assert inside(nic) == set()
    assert inside(nic, inside=("jobs",)) == {"nic5"}
    assert inside(nic, inside=("jobs",), uplinks=("nic5",)) == set()


@pytest.mark.parametrize(
    ("inner", "expected"),
    [
        ((INNER,), True),
        ((INNER, link(5, "dummy")), True),
        ((INNER, link(5, "macvlan", lower=2)), True),
        ((INNER, link(5, "vlan", lower=2), link(6, "bridge")), True),
        ((INNER, link(5, "veth", lower=6), link(6, "veth", lower=5)), True),
        ((INNER, link(5, "macvlan", lower=2, namespace=HERE, up=False)), True),
        ((INNER, link(5, "macvlan", lower=2, namespace=HERE)), False),
        ((INNER, link(5, "ipvlan", lower=2, namespace=OTHER)), False),
        ((INNER, link(5, "veth", lower=7, namespace=OTHER)), False),
        ((INNER, link(5, "")), False),
        ((INNER, link(5, "tun")), False),
        ((INNER, link(5, "wireguard")), False),
        ((INNER, link(5, "vxlan", namespace=HERE)), False),
        ((INNER, link(5, "unheard-of")), False),
        ((link(5, "veth", lower=4, namespace=HERE),), False),
        ((), False),
    ],
)
def test_veth(inner: tuple[Link, ...], *, expected: bool) -> None:
    """A veth is inside where its container has no other way out that is up."""
    assert ("veth4" in inside(facts(VETH, inner=inner))) is expected


def test_an_unknown_container_is_judged() -> None:
    """A namespace that could not be read says nothing."""
    assert inside(facts(VETH, namespaces=())) == set()


def test_two_veths_of_a_container() -> None:
    """With one bridged to a NIC, the container can send by it what came by the other."""
    second = link(5, "veth", lower=3, namespace=POD)
    inner = (INNER, link(3, "veth", lower=5, namespace=HERE))

    assert inside(facts(VETH, second, inner=inner)) == {"veth4", "veth5"}
    assert inside(facts(VETH, replace(second, master=3), DOCKER0, inner=inner)) == {
        "veth4",
        "veth5",
        "docker0",
    }
    bridged = facts(VETH, replace(second, master=3), DOCKER0, link(6, "", master=3), inner=inner)
    assert inside(bridged) == set()


def test_a_pair_with_both_ends_here() -> None:
    """What comes in by the other end is judged, unless that is bridged to a NIC."""
    one, other = link(5, "veth", lower=6), link(6, "veth", lower=5)

    assert inside(facts(one, other)) == {"veth5", "veth6"}
    assert inside(facts(one, other), uplinks=("veth6",)) == set()
    ported = replace(other, master=3)
    assert inside(facts(one, ported, DOCKER0)) == {"veth5", "veth6", "docker0"}
    assert inside(facts(one, ported, DOCKER0, link(7, "", master=3))) == set()


@pytest.mark.parametrize(
    ("port", "expected"),
    [
        (None, True),
        (link(5, "dummy"), True),
        (link(5, ""), False),
        (link(5, "bond"), False),
        (link(5, "vlan", lower=2), False),
        (link(5, "tun"), False),
        (link(5, "veth", lower=3, namespace=OTHER), False),
    ],
)
def test_bridge(port: Link | None, *, expected: bool) -> None:
    """A bridge is inside while all its ports are, and so its containers' veths are."""
    ports = () if port is None else (replace(port, master=3),)
    network = facts(DOCKER0, replace(VETH, master=3), *ports)

    assert inside(network) == ({"docker0", "veth4"} if expected else set())


def test_a_bridge_without_a_port() -> None:
    """Its address is none of the VM's, and it is judged: its first port may be a NIC."""
    (found,) = find_inside(facts(DOCKER0), LISTS, Words())

    assert (found.link, found.exempt) == (DOCKER0, False)


@pytest.mark.parametrize("kind", sorted(OVERLAYS))
@pytest.mark.parametrize(
    ("tunnel", "expected"),
    [
        (Tunnel(ip_address("10.0.0.1"), (FAR,), 4789), True),
        (Tunnel(ip_address("10.0.0.1"), (ip_address("192.0.2.9"),), 4789), True),
        (Tunnel(None, (FAR,), 4789), True),
        (Tunnel(ip_address("10.0.0.2"), (FAR,), 4789), False),
        (Tunnel(ip_address("192.0.2.1"), (FAR,), 4789), False),
        (Tunnel(ip_address("10.0.0.1"), (ip_address("239.1.1.1"),), 4789), False),
        (Tunnel(None, (ip_address("fd00::9"),), 4789), False),
        (None, False),
    ],
)
def test_overlay(kind: str, tunnel: Tunnel | None, *, expected: bool) -> None:
    """One whose packets leave from an own encrypted address, to no multicast group."""
    network = facts(link(5, kind, tunnel=tunnel))

    assert inside(network) == ({f"{kind}5"} if expected else set())
    elsewhere = facts(link(5, kind, tunnel=tunnel, namespace=OTHER))
    assert inside(elsewhere) == set()


@pytest.mark.parametrize("kind", sorted(OVERLAYS))
def test_an_overlay_whose_packets_choose_their_far_end(kind: str) -> None:
    """A gre or ipip without a remote is judged; one of several peers by nature is not."""
    network = facts(link(5, kind, tunnel=Tunnel(OWN.address, (), 4789)))

    expected = {f"{kind}5"} if kind in {"geneve", "vxlan", "wireguard"} else set()
    assert inside(network) == expected


@pytest.mark.parametrize("kind", ["geneve", "vxlan"])
def test_an_overlay_whose_port_is_not_known(kind: str) -> None:
    """The guard cannot keep others from it."""
    assert inside(facts(link(5, kind, tunnel=Tunnel(OWN.address, (FAR,))))) == set()


def test_an_overlay_of_a_vm_with_an_address_that_is_not_encrypted() -> None:
    """Where a route chooses the source, all own addresses must be encrypted."""
    open_ended = link(5, "vxlan", tunnel=Tunnel(port=8472))
    plain = OwnAddress(ip_address("192.0.2.1"), 24, 2)

    assert inside(facts(open_ended, addresses=(OWN, plain))) == set()
    assert inside(facts(open_ended, addresses=())) == set()
    bridge = OwnAddress(ip_address("172.17.0.1"), 16, 3)
    assert inside(facts(open_ended, DOCKER0, addresses=(OWN, bridge))) == {"vxlan5", "docker0"}
    overlay = OwnAddress(ip_address("172.18.0.1"), 16, 5)
    assert inside(facts(open_ended, addresses=(OWN, overlay))) == {"vxlan5"}


def test_a_bridge_of_an_overlay() -> None:
    """As some container networks have it."""
    tunnel = Tunnel(ip_address("10.0.0.1"), port=8472)
    network = facts(link(5, "vxlan", tunnel=tunnel, master=3), DOCKER0, replace(VETH, master=3))

    assert inside(network) == {"vxlan5", "docker0", "veth4"}
    clear = replace(network, addresses=())
    assert inside(clear) == set()


@pytest.mark.parametrize(
    "kind", ["", "bond", "dummy", "ifb", "ipvlan", "macvlan", "macvtap", "tun", "vlan", "vrf", "x"]
)
def test_everything_else_is_judged(kind: str) -> None:
    """Hardware, what is stacked, what is unknown; a tun leads to some program."""
    assert inside(facts(link(5, kind, lower=2))) == set()
    assert inside(facts(link(5, kind)), inside=(f"{kind or 'nic'}5",)) == {f"{kind or 'nic'}5"}


def test_the_operators_words() -> None:
    """Uplinks are judged whatever they look like; the word for one counts for a bridge of it."""
    network = facts(DOCKER0, replace(VETH, master=3), link(5, "tun", master=3))

    assert inside(network) == set()
    assert inside(network, inside=("tun5",)) == {"docker0", "veth4", "tun5"}
    assert inside(network, inside=("tun5",), uplinks=("tun5",)) == set()
    assert inside(facts(VETH), uplinks=("veth4",)) == set()


def test_the_way_of_a_default_route_is_judged() -> None:
    """Whatever it looks like."""
    assert inside(facts(VETH, default_links=(4,))) == set()


def test_a_link_on_which_one_in_another_namespace_enforced() -> None:
    """A container's macvlan on docker0 leads to who knows where."""
    inner = (link(7, "macvlan", lower=3, namespace=HERE),)
    elsewhere = Namespace(OTHER, inner)
    network = facts(DOCKER0, replace(VETH, master=3))
    known = replace(network, namespaces=(*network.namespaces, elsewhere))

    assert inside(network) == {"docker0", "veth4"}
    assert inside(known) == set()


@pytest.mark.parametrize("name", ["a*", 'a"b', "a{", "ä"])
def test_a_name_that_nft_would_misread(name: str) -> None:
    """Such a link is judged."""
    assert inside(facts(replace(VETH, name=name))) == set()


def test_a_link_called_like_a_number() -> None:
    """nft would take the index 4 for the link named 4."""
    assert inside(facts(VETH, link(12, "", name="4"))) == set()


def test_own_ways() -> None:
    """A macvlan of a container on the uplink, and hardware in one, cannot be judged from here."""
    ways = (
        link(7, "macvlan", lower=2, namespace=HERE),
        link(8, "ipvlan", lower=3, namespace=HERE),
        link(9, "macvlan", lower=2, namespace=HERE, up=False),
        link(10, "macvlan", lower=2),
        link(11, ""),
    )
    network = facts(VETH, DOCKER0, inner=(INNER, *ways))
    found = own_ways(network, find_inside(network, LISTS, Words(inside=("docker0",))))

    assert [(one.link.name, one.below) for one in found] == [("macvlan7", "eth0"), ("nic11", "")]


def test_a_container_in_a_bridge_that_has_a_way_out() -> None:
    """The bridge switches its frames to the network card, past the guard."""
    port = replace(VETH, master=DOCKER0.index)
    card = link(7, "", master=DOCKER0.index)

    def ways(*links: Link, inner: Link = INNER) -> list[tuple[str, str]]:
        network = facts(*links, inner=(INNER_LO, inner))
        found = own_ways(network, find_inside(network, LISTS, Words()))
        return [(one.link.name, one.below) for one in found]

    assert ways(port, DOCKER0, card) == [("eth0", "docker0")]
    assert ways(port, DOCKER0, card, inner=replace(INNER, up=False)) == []
    assert ways(port, DOCKER0) == []
    assert ways(VETH, DOCKER0, card) == []
    # A master that routes switches nothing.
    assert ways(port, replace(DOCKER0, kind="vrf"), card) == []
    # A tap is a program's, as that of a container's VPN.
    assert ways(port, DOCKER0, replace(card, kind="tun")) == []


# --- any network ------------------------------------------------------------------------------

KINDS = ("", "bond", "bridge", "dummy", "macvlan", "tun", "veth", "vlan", "vxlan")
any_links = st.lists(
    st.builds(
        lambda kind, master, lower, namespace: (kind, master, lower, namespace),
        st.sampled_from(KINDS),
        st.sampled_from([0, 0, 3, 4, 5, 6]),
        st.integers(0, 9),
        st.sampled_from([None, None, POD, OTHER]),
    ),
    max_size=7,
)
any_inner = st.lists(st.tuples(st.sampled_from(KINDS), st.integers(0, 9)), max_size=3)


@given(any_links, any_inner)
def test_nothing_with_a_way_out_is_inside(
    links: list[tuple[str, int, int, int | None]], inner: list[tuple[str, int]]
) -> None:
    """No bridge with a judged port, no port of a judged bridge, no container with a way out."""
    own = tuple(
        Link(
            index,
            f"l{index}",
            1500,
            up=True,
            kind=kind,
            master=master if master != index else 0,
            lower=lower,
            namespace=namespace,
            tunnel=Tunnel(port=8472) if kind == "vxlan" else None,
        )
        for index, (kind, master, lower, namespace) in enumerate(links, 3)
    )
    there = tuple(
        Link(index, f"c{index}", 1500, up=True, kind=kind, lower=lower, namespace=HERE)
        for index, (kind, lower) in enumerate(inner, 2)
    )
    network = facts(*own, inner=there)
    found = {one.link.index for one in find_inside(network, LISTS, Words())}

    assert not found & {1, 2}
    for link_ in own:
        if link_.index not in found:
            assert (
                link_.kind != "bridge"
                or any(
                    port.master == link_.index and port.index not in found and port.kind != "dummy"
                    for port in own
                )
                or any(
                    one.kind in {"macvlan", "vlan"} and one.lower == link_.index for one in there
                )
            )
            continue
        assert link_.kind in {"bridge", "veth", "vxlan"}
        if link_.kind == "bridge":
            ports = [port for port in own if port.master == link_.index]
            assert all(port.index in found or port.kind == "dummy" for port in ports)
        if link_.kind == "veth":
            assert link_.master == 0 or link_.master in found
            assert link_.namespace != OTHER, "which nobody has read"
        if link_.kind == "veth" and link_.namespace == POD:
            assert {one.kind for one in there} <= {"veth"} | {"bridge", "bond", "dummy"}
