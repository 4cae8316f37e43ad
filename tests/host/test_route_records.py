"""Addresses and default routes from the kernel's bytes."""

import errno
import socket
import struct
from collections.abc import Sequence
from ipaddress import ip_address
from typing import Any, cast

import pytest

from ipsec_agent.core.observed import OwnAddress
from ipsec_agent.host.route_records import (
    Hop,
    Route,
    address_of,
    default_route,
    matters,
    read_default_hops,
)
from ipsec_agent.host.rtnetlink import HEADER, NLMSG_DONE, RTM_GETROUTE
from tests.host.test_link_records import attribute

V4, V6 = ip_address("10.0.0.1"), ip_address("fd00::1")
MAIN = 254
PHONET = 35


def address(family: int, *attributes: bytes) -> bytes:
    """`struct ifaddrmsg` of link 7, and attributes."""
    return struct.pack("=BBBBI", family, 24, 0, 0, 7) + b"".join(attributes)


def route(
    *attributes: bytes,
    family: int = socket.AF_INET,
    to: int = 0,
    source: int = 0,
    table: int = MAIN,
    kind: int = 1,
    flags: int = 0,
) -> bytes:
    """`struct rtmsg`, and attributes."""
    return struct.pack("=BBBBBBBBI", family, to, source, 0, table, 3, 0, kind, flags) + b"".join(
        attributes
    )


def number(kind: int, value: int) -> bytes:
    """An attribute that holds a number."""
    return attribute(kind, struct.pack("=I", value))


VIA = attribute(5, V4.packed)
OUT = number(4, 2)


@pytest.mark.parametrize(
    ("body", "own"),
    [
        (address(2, attribute(1, V4.packed), attribute(2, V4.packed)), V4),
        # Of a point-to-point link the first one is the peer's.
        (address(2, attribute(1, bytes(4)), attribute(2, V4.packed)), V4),
        (address(10, attribute(1, V6.packed)), V6),
    ],
)
def test_an_address(body: bytes, own: Any) -> None:
    """Its own, with its network's length and its link."""
    assert address_of(body) == OwnAddress(own, 24, 7)


def test_an_address_of_another_family() -> None:
    """Others than IP are passed over: a modem may have one of a single byte."""
    assert address_of(address(PHONET, attribute(2, b"\x6c"))) is None


@pytest.mark.parametrize("body", [b"", address(2), address(2, attribute(1, b"abc"))])
def test_an_address_that_is_not_understood(body: bytes) -> None:
    """It is one documented error."""
    with pytest.raises(OSError, match="Bad message"):
        address_of(body)


@pytest.mark.parametrize(
    ("body", "metric", "hops"),
    [
        (route(VIA, OUT), 0, [Hop(2, V4)]),
        (route(OUT), 0, [Hop(2, None)]),
        (route(VIA, OUT, number(6, 0xFFFFFFFF)), 0xFFFFFFFF, [Hop(2, V4)]),
        (route(attribute(18, struct.pack("=H", 10) + V6.packed), OUT), 0, [Hop(2, V6)]),
        (route(OUT, number(15, MAIN), table=252), 0, [Hop(2, None)]),
        (
            route(
                attribute(
                    9,
                    (struct.pack("=HBBi", 16, 0, 0, 2) + VIA) + struct.pack("=HBBi", 8, 0, 0, 3),
                )
            ),
            0,
            [Hop(2, V4), Hop(3, None)],
        ),
        (route(attribute(5, V6.packed), OUT, family=10), 0, [Hop(2, V6)]),
    ],
)
def test_a_default_route(body: bytes, metric: int, hops: Sequence[Hop]) -> None:
    """Its metric, and each way with its link and gateway."""
    assert default_route(body) == Route(metric, tuple(hops))


@pytest.mark.parametrize(
    "body",
    [
        route(VIA, OUT, to=8),
        route(VIA, OUT, source=8),
        route(VIA, OUT, kind=7),
        route(VIA, OUT, flags=1),
        route(VIA, OUT, table=100),
        route(VIA, OUT, number(15, 1000), table=252),
        route(VIA, OUT, family=28),
    ],
)
def test_no_default_route(body: bytes) -> None:
    """To one network, from one, unreachable, dead, of another table, of another family."""
    assert default_route(body) is None


def test_a_hop_without_a_length() -> None:
    """It does not keep the reader for ever."""
    hops = attribute(9, struct.pack("=HBBi", 0, 0, 0, 2) * 2)

    assert default_route(route(hops)) == Route(0, (Hop(2, None), Hop(2, None)))


def test_what_an_event_can_change() -> None:
    """All of addresses; of routes the default ones."""
    assert matters(20, b"")
    assert matters(24, route())
    assert matters(25, route(VIA))
    assert not matters(24, route(to=24))
    with pytest.raises(OSError, match="Bad message"):
        matters(24, b"\2")


class Kernel:
    """A socket on which each family's routes come."""

    def __init__(self, *dumps: Sequence[bytes] | int) -> None:
        self._dumps = list(dumps)
        self.asked: list[bytes] = []

    def send(self, request: bytes) -> None:
        """Ask."""
        self.asked.append(request)

    def recv(self, _size: int) -> bytes:
        """The whole answer."""
        answer = self._dumps.pop(0)
        bodies, code = ([], answer) if isinstance(answer, int) else (answer, 0)
        return b"".join(
            HEADER.pack(HEADER.size + len(body), kind, 2, 1, 0) + body
            for kind, body in (*((24, body) for body in bodies), (NLMSG_DONE, number_of(-code)))
        )


def number_of(code: int) -> bytes:
    """A signed number."""
    return struct.pack("=i", code)


def test_preferred_ones_first() -> None:
    """Whatever their family; the kernel is asked for the main table of both."""
    four = [route(OUT, number(6, metric)) for metric in (2000, 5)]
    six = route(number(4, 3), number(6, 1024), family=10)
    kernel = Kernel([*four, route(OUT, to=8)], [six])

    hops = read_default_hops(cast("Any", kernel))

    assert hops == (Hop(2, None), Hop(3, None), Hop(2, None))
    assert [HEADER.unpack_from(one)[1] for one in kernel.asked] == [RTM_GETROUTE] * 2
    assert [(one[16], one[20]) for one in kernel.asked] == [(2, MAIN), (10, MAIN)]


def test_no_table() -> None:
    """Before the first route there is none; another refusal is one."""
    assert read_default_hops(cast("Any", Kernel(errno.ENOENT, []))) == ()
    with pytest.raises(PermissionError):
        read_default_hops(cast("Any", Kernel(errno.EPERM, [])))
