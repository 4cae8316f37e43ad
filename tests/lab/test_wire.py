"""The capture and the judge: what makes them convict, and when they refuse to judge."""

import socket
import struct
import time
from collections.abc import Iterator
from dataclasses import replace
from ipaddress import ip_address

import pytest

from tests.charon.nodes import Node, ip, network, until
from tests.lab.deployment import A, B, hub_of
from tests.lab.floods import flood
from tests.lab.frames import Kind
from tests.lab.judge import assert_only_esp, plant
from tests.lab.namespaces import inside
from tests.lab.traffic import Flow, ping, transfer
from tests.lab.wire import Capture

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(200)]

A6, B6 = "fd09::1", "fd09::2"


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Node]]:
    """Two VMs without IPsec, with IPv4 and IPv6."""
    with network(tmp_path_factory.mktemp("vms"), 2, "wi") as nodes:
        for node, address in zip(nodes, (A6, B6), strict=True):
            ip("addr", "add", f"{address}/64", "dev", "eth0", "nodad", netns=node.name)
        yield nodes


def tried(count: int = 100) -> Flow:
    """A flow that was just tried, so many times."""
    now = time.monotonic()
    return Flow(count, count, now, now)


@pytest.mark.parametrize(("one", "other"), [(A, B), (A6, B6)])
def test_planted_packet_is_seen(pair: list[Node], one: str, other: str) -> None:
    """It goes past IPsec and nftables onto the wire, as a leak would, and no VM hears it."""
    with Capture(hub_of(pair)) as capture:
        plant(pair[0].name, one, other)
        time.sleep(0.3)

    assert capture.planted == {(one, other): 1}
    assert capture.clear() == {}


@pytest.mark.parametrize(("one", "other"), [(A, B), (A6, B6)])
def test_a_clear_packet_convicts(pair: list[Node], one: str, other: str) -> None:
    """One echo in clear is enough, and the judge shows it."""
    with Capture(hub_of(pair)) as capture:
        flow = ping(pair[0].name, other, 1)
        with pytest.raises(AssertionError, match="2 clear packets between"):
            assert_only_esp(capture, pair[0].name, one, other, flow, at_least=1)

    assert capture.between(one, other, Kind.CLEAR) == 2


def test_silence_is_no_proof(pair: list[Node]) -> None:
    """Too few attempts, a flow outside the window, or no ESP: no judgement."""
    name = pair[0].name
    early = tried()
    with Capture(hub_of(pair)) as capture:
        good = tried()
        late = replace(good, ended=good.ended + 1000)
        with pytest.raises(AssertionError, match="only 100 of 101 attempts"):
            assert_only_esp(capture, name, A, B, good, at_least=101)
        with pytest.raises(AssertionError, match="began before"):
            assert_only_esp(capture, name, A, B, early, at_least=1)
        with pytest.raises(AssertionError, match="outlasts"):
            assert_only_esp(capture, name, A, B, late, at_least=1)
        with pytest.raises(AssertionError, match="0 packets of ESP"):
            assert_only_esp(capture, name, A, B, good, at_least=1)


def test_a_lossy_capture_is_no_judge(pair: list[Node], monkeypatch: pytest.MonkeyPatch) -> None:
    """With a buffer for a few frames it loses some of a flood, knows it, and refuses."""
    monkeypatch.setattr("tests.lab.wire.BUFFER", 4096)
    monkeypatch.setattr(Capture, "_count", lambda *_: time.sleep(0.01))
    a, b = pair
    with Capture(hub_of(pair)) as capture:
        with flood(a.name, b.name, B, seconds=1) as running:
            flow = running.wait()
        monkeypatch.undo()
        with pytest.raises(AssertionError, match=r"lost \d+ frames: it is no judge"):
            assert_only_esp(capture, a.name, A, B, flow, at_least=1)

    assert capture.dropped > 100


def test_a_capture_that_misses_the_planted_packet(pair: list[Node]) -> None:
    """A capture that has ended, or sees another bridge, refuses to judge."""
    with Capture(hub_of(pair)) as capture:
        flow = tried()
        capture.stop()
        with pytest.raises(AssertionError, match="missed the planted packet"):
            assert_only_esp(capture, pair[0].name, A, B, flow, at_least=1)


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
@pytest.mark.parametrize(("one", "other"), [(A, B), (A6, B6)])
def test_flood_is_counted(pair: list[Node], protocol: str, one: str, other: str) -> None:
    """1,000 packets a second: all are sent, all arrive, and the capture sees each."""
    a, b = pair
    with (
        Capture(hub_of(pair)) as capture,
        flood(a.name, b.name, other, protocol=protocol) as running,
    ):
        # On a busy machine it takes longer: what was due in a long sleep is not made good.
        until(lambda: running.read().out["sent"] >= 1900, "they are sent")
        flow = running.end()

    assert flow.attempts <= 1000 * (flow.ended - flow.began)
    assert flow.sent == flow.arrived
    assert capture.dropped == 0
    # A delayed TCP segment may hold two messages.
    least = flow.sent if protocol == "udp" else flow.sent // 2
    assert capture.counts[one, other, Kind.CLEAR] >= least


def test_flood_tells_pauses_and_refusals(pair: list[Node]) -> None:
    """A link that is down for half a second is a pause of that length, and errors have names."""
    a, b = pair
    began = time.monotonic()
    with flood(a.name, b.name, B) as running:

        def received() -> int:
            return int(running.read().came["received"])

        until(received, "it arrives")
        ip("link", "set", "eth0", "down", netns=a.name)
        until(lambda: "ENETUNREACH" in running.read().out["refused"], "it is refused")
        time.sleep(0.5)
        before = received()
        ip("link", "set", "eth0", "up", netns=a.name)
        until(lambda: received() > before, "it arrives again")
        took = time.monotonic() - began
        flow = running.end()
    ip("addr", "replace", f"{A6}/64", "dev", "eth0", "nodad", netns=a.name)

    # While its neighbour is asked for again, what waits can fill the socket's buffer.
    assert {"ENETUNREACH"} <= flow.refused.keys() <= {"ENETUNREACH", "EAGAIN"}
    assert 0.4 < flow.longest_pause < took


def test_transfer(pair: list[Node]) -> None:
    """A transfer moves every byte, over IPv4 and IPv6, and tells its speed."""
    a, b = pair
    for address in (B, B6):
        flow = transfer(a.name, b.name, address, 3_000_001)

        assert flow.bytes == 3_000_001
        assert flow.speed > 0


def esp_frame(one: str, other: str) -> bytes:
    """A frame of ESP between two addresses, to all: the bridge's own device shows it, too."""
    ends = ip_address(one).packed + ip_address(other).packed
    body = b"\0\0\x10\x01" + bytes(40)
    if ":" in one:
        head = struct.pack("!IHBB", 6 << 28, len(body), 50, 64)
        return bytes.fromhex("ffffffffffff02aabbccddef86dd") + head + ends + body
    head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(body), 0, 0, 64, 50, 0)
    return bytes.fromhex("ffffffffffff02aabbccddef0800") + head + ends + body


@pytest.mark.parametrize(("one", "other"), [(A, B), (A6, B6)])
def test_the_kernel_counts_as_the_look_at_each_frame(
    pair: list[Node], one: str, other: str
) -> None:
    """ESP of the pair, both ways, frame for frame; all else is looked at, and convicts."""
    with (
        Capture(hub_of(pair)) as looked,
        Capture(hub_of(pair), pairs=[(one, other)]) as counted,
        inside(pair[0].name),
        socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw,
    ):
        raw.bind(("eth0", 0))
        third = "10.9.0.9" if ":" not in one else "fd09::9"
        for ends, count in (((one, other), 300), ((other, one), 200), ((one, third), 7)):
            for _ in range(count):
                raw.send(esp_frame(*ends))
        flow = ping(pair[0].name, other, 1)
        time.sleep(0.3)
        looked.stop()
        with pytest.raises(AssertionError, match="2 clear packets between"):
            assert_only_esp(counted, pair[0].name, one, other, flow, at_least=1)

    for capture in (looked, counted):
        assert capture.counts[one, other, Kind.ESP] == 300
        assert capture.counts[other, one, Kind.ESP] == 200
        assert capture.counts[one, third, Kind.ESP] == 7
    assert counted.clear() == looked.clear()
    assert counted.dropped == 0
