"""Links from the kernel's bytes: what inside.py needs of each kind."""

import struct
from ipaddress import ip_address

import pytest

from ipsec_agent.core.observed import Link, Tunnel
from ipsec_agent.host.link_records import link_of


def attribute(kind: int, value: bytes) -> bytes:
    """An attribute, filled up to four bytes."""
    return struct.pack("=HH", 4 + len(value), kind) + value + bytes(-len(value) % 4)


def answer(*more: bytes, index: int = 7, flags: int = 1) -> bytes:
    """A link as RTM_NEWLINK tells it, behind its header."""
    named = attribute(3, b"x7\0") + attribute(4, struct.pack("=I", 1500))
    return struct.pack("=BxHiII", 0, 1, index, flags, 0) + named + b"".join(more)


def info(kind: str, *data: bytes) -> bytes:
    """IFLA_LINKINFO."""
    named = attribute(1, kind.encode() + b"\0")
    return attribute(18, named + (attribute(2, b"".join(data)) if data else b""))


V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")
FAR4, FAR6 = ip_address("10.0.0.9"), ip_address("fd00::9")
FLAG = b""
PORT = 15, b"\x12\xb5"


def test_a_link() -> None:
    """Its own facts, and where its other end is."""
    veth = answer(
        info("veth"),
        attribute(1, bytes.fromhex("020000000001")),
        *(attribute(kind, struct.pack("=i", value)) for kind, value in ((5, 2), (10, 3), (37, 4))),
    )

    assert link_of(veth) == Link(
        7,
        "x7",
        1500,
        up=True,
        kind="veth",
        master=3,
        lower=2,
        namespace=4,
    )
    assert link_of(answer(flags=0x8)) == Link(7, "x7", 1500, up=False, loopback=True)


def test_other_names() -> None:
    """Those of `ip link property`; each is as good as the first."""
    names = attribute(53, b"enp0s3\0") + attribute(53, b"ens3\0") + attribute(1, b"x\0")

    assert link_of(answer(attribute(0x8000 | 52, names))).altnames == ("enp0s3", "ens3")


def test_another_namespace() -> None:
    """The kernel must say that it answers for the namespace that was asked about."""
    assert link_of(answer(attribute(46, struct.pack("=i", 5))), 5).name == "x7"
    for other in (answer(), answer(attribute(46, struct.pack("=i", 6)))):
        with pytest.raises(OSError, match="not supported"):
            link_of(other, 5)


@pytest.mark.parametrize(
    ("kind", "data", "tunnel"),
    [
        ("vxlan", [(4, V4.packed), (2, FAR4.packed), PORT], Tunnel(V4, (FAR4,), 4789)),
        ("vxlan", [(17, V6.packed), (16, FAR6.packed)], Tunnel(V6, (FAR6,))),
        ("vxlan", [(4, bytes(4)), (25, b"\0")], Tunnel()),
        ("vxlan", [(4, V4.packed), (25, b"\1")], None),
        ("geneve", [(2, FAR4.packed)], Tunnel(None, (FAR4,))),
        ("geneve", [(2, FAR4.packed), (5, b"\x17\xc1")], Tunnel(None, (FAR4,), 6081)),
        ("geneve", [(7, FAR6.packed), (6, FLAG)], None),
        ("ipip", [(2, V4.packed), (3, FAR4.packed)], Tunnel(V4, (FAR4,))),
        ("ip6tnl", [(2, V6.packed), (19, FLAG)], None),
        ("gre", [(6, V4.packed), (7, bytes(4))], Tunnel(V4)),
        ("ip6gretap", [(6, V6.packed), (18, FLAG)], None),
        ("wireguard", [], Tunnel()),
        ("vti", [(4, V4.packed)], None),
    ],
)
def test_tunnels(kind: str, data: list[tuple[int, bytes]], tunnel: Tunnel | None) -> None:
    """Source and far ends by kind; None where each packet has its own, or the kind is no tunnel."""
    found = link_of(answer(info(kind, *(attribute(*each) for each in data))))

    assert (found.kind, found.tunnel) == (kind, tunnel)


@pytest.mark.parametrize("more", [(4, V4.packed), (25, b"\1")])
def test_the_port_of_a_tunnel(more: tuple[int, bytes]) -> None:
    """The kernel has it for the link, also where each packet has its own ends."""
    data = (attribute(*each) for each in (more, (15, (4500).to_bytes(2))))

    assert link_of(answer(info("vxlan", *data))).port == 4500
    assert link_of(answer(info("ipip"))).port == 0
