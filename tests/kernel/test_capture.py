"""What `verify` sends and captures, on real links: each kind of packet, of both versions of IP."""

import asyncio
import socket
import time
from collections.abc import Iterator
from ipaddress import IPv4Address, IPv6Address, ip_address
from pathlib import Path

import pytest

from ipsec_agent.core.path_mtu import PathMtu
from ipsec_agent.core.proof import Window
from ipsec_agent.host.capture import Capture, decrypts_early
from ipsec_agent.host.echo import Echo
from ipsec_agent.host.route_records import source_for
from ipsec_agent.verification import _absent, _path_mtu
from tests.charon.nodes import Node, ip, network, until
from tests.lab.namespaces import inside
from tests.lab.traffic import ping

pytestmark = pytest.mark.kernel

Ends = tuple[IPv4Address | IPv6Address, IPv4Address | IPv6Address]
ESP, PORT = 50, 4500
FLOOD = 60_000
"""Packets: three times as many as there is room for."""


@pytest.fixture(params=[4, 6])
def vms(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[list[Node], Ends]]:
    """Two VMs without agents, and their addresses."""
    version = request.param
    with network(tmp_path, 2, "cp", version=version) as nodes:
        form = "10.9.0.{}" if version == 4 else "fd09::{}"
        yield nodes, (ip_address(form.format(1)), ip_address(form.format(2)))


def send(node: Node, source: str, destination: str) -> None:
    """Send three packets of ESP, two of ESP in UDP, one of something else."""
    family = socket.AF_INET6 if ":" in source else socket.AF_INET
    with inside(node.name):
        with socket.socket(family, socket.SOCK_RAW, ESP) as raw:
            for _ in range(3):
                raw.sendto(b"\x00\x00\x10\x00" + bytes(40), (destination, 0))
        with socket.socket(family, socket.SOCK_DGRAM) as udp:
            udp.bind((source, PORT))
            for _ in range(2):
                udp.sendto(b"\x00\x00\x10\x00" + bytes(40), (destination, PORT))
            udp.sendto(b"secret", (destination, 9))


def seen(capture: Capture, esp_in: int) -> Window:
    """What has been captured, once so much ESP has come in."""
    window = capture.take()
    for _ in range(100):
        if window.esp_in >= esp_in:
            break
        time.sleep(0.02)
        window = capture.take()
    return window


def test_capture(vms: tuple[list[Node], Ends]) -> None:
    """All of a pair's packets are counted by kind and direction, and no other packet."""
    (one, other), (own, peer) = vms
    # What is sent to a neighbour that is not known yet waits, and is captured later.
    assert ping(one.name, str(peer), 3).arrived
    with inside(one.name):
        capture = Capture(own, peer)
    with capture:
        send(one, str(own), str(peer))
        out = capture.take()
        send(other, str(peer), str(own))
        came = seen(capture, 5)
        stranger = "fd09::77" if own.version == 6 else "10.9.0.77"
        with (
            inside(one.name),
            socket.socket(
                socket.AF_INET6 if own.version == 6 else socket.AF_INET, socket.SOCK_DGRAM
            ) as udp,
        ):
            udp.sendto(b"x", (stranger, 9))

        # Who gets them has no such port, and answers by ICMP, which counts as well.
        assert (out.esp_out, out.links) == (5, ("eth0",))
        assert (came.esp_in, came.lost) == (5, 0)
        assert "UDP" in out.protocols
        assert "UDP" in came.protocols
        assert out.clear_out >= 1 <= came.clear_in
        assert "UDP" not in capture.take().protocols


def test_a_flood(tmp_path: Path) -> None:
    """What there is no room for is counted as lost; ESP, which has its own, is not."""
    with network(tmp_path, 2, "cf") as (one, other), inside(one.name):
        assert ping(one.name, "10.9.0.2", 3).arrived
        with Capture(ip_address("10.9.0.1"), ip_address("10.9.0.2")) as capture:
            with inside(other.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as udp:
                for _ in range(FLOOD):
                    udp.sendto(b"x", ("10.9.0.1", 9))
            send(other, "10.9.0.2", "10.9.0.1")
            came = seen(capture, 5)

    assert came.lost > 0
    assert came.esp_in == 5
    assert came.clear_in + came.lost >= FLOOD


def test_source(vms: tuple[list[Node], Ends]) -> None:
    """It is that of the route, whatever the policies say; of no route there is none."""
    (one, _), (own, peer) = vms
    nowhere = ip_address("192.0.2.1" if own.version == 4 else "2001:db8::1")
    pair = ("src", str(own), "dst", str(peer), "dir", "out")
    policy = ("xfrm", "policy", "add", *pair, "priority", "1", "action", "block")
    # A template without an SA: who connects a socket has charon asked for one.
    trap = (*policy[:-2], "tmpl", "proto", "esp", "mode", "transport")
    for added in (policy, trap):
        ip(*added, netns=one.name)
        with inside(one.name):
            assert source_for(peer) == own
        assert [line for line in ip("xfrm", "state", netns=one.name).splitlines() if line] == []
        ip("xfrm", "policy", "delete", *pair, netns=one.name)
    for kind in ("", "unreachable", "prohibit", "blackhole"):
        if kind:
            ip("route", "replace", kind, str(nowhere), netns=one.name)
        with inside(one.name):
            assert source_for(nowhere) is None
    ip("route", "delete", kind, str(nowhere), netns=one.name)


def test_echo(vms: tuple[list[Node], Ends]) -> None:
    """Echoes are answered and timed; the largest packet is that of the link."""
    (one, _), (own, peer) = vms

    async def measure() -> tuple[PathMtu, tuple[float, ...]]:
        with Echo(own, peer) as echo:
            loop = asyncio.get_running_loop()
            echo.watched(loop.add_reader)
            echo.send()
            for _ in range(100):
                if echo.answers:
                    break
                await asyncio.sleep(0.02)
            times = echo.times
            path = await _path_mtu(echo, 0.01)
            loop.remove_reader(echo.descriptor)
        return path, times

    with inside(one.name):
        path, times = asyncio.run(measure())

    assert len(times) == 1
    assert 0 < times[0] < 5
    assert path == PathMtu(1500, 1500)


def test_a_policy_that_blocks(vms: tuple[list[Node], Ends]) -> None:
    """Each request is refused, and is answered as soon as the policy is gone."""
    (one, _), (own, peer) = vms
    assert ping(one.name, str(peer), 3).arrived
    block = ("src", str(own), "dst", str(peer), "dir", "out")
    ip("xfrm", "policy", "add", *block, "priority", "1", "action", "block", netns=one.name)

    with inside(one.name), Echo(own, peer) as echo:
        assert echo.send() is None
        assert set(echo.refused) == {"EPERM"}
        ip("xfrm", "policy", "delete", *block, netns=one.name)
        assert echo.send() == 1

        def answered() -> bool:
            echo.receive()
            return bool(echo.times)

        until(answered, "it is answered")


def test_nobody_there(vms: tuple[list[Node], Ends]) -> None:
    """Who is on a link and does not answer is absent; who is elsewhere may well be there."""
    (one, _), (own, peer) = vms
    nobody, elsewhere = ("10.9.0.77", "192.0.2.1") if own.version == 4 else ("fd09::77", "2001::1")

    with inside(one.name):
        found = [asyncio.run(_absent(ip_address(str(it)))) for it in (nobody, peer, elsewhere)]

    assert found == [True, False, False]


def test_offload(tmp_path: Path) -> None:
    """The modules with which ESP is decrypted before a capture are known by their names."""
    modules = tmp_path / "modules"
    modules.write_text("esp4 1 0 - Live 0\nxesp4_offload 1 0 - Live 0\n")
    assert not decrypts_early(modules)
    modules.write_text("esp4_offload 24576 0 - Live 0x0\n")
    assert decrypts_early(modules)
    assert not decrypts_early(tmp_path / "none")
