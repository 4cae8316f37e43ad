"""Tunnels that are not judged, because what carries them is: who else reaches their port?"""

import struct
import subprocess

import pytest

from ipsec_agent.core.guard_table import exempt_update, ruleset
from tests.charon.nodes import ips
from tests.kernel.guard_lab import (
    A4,
    B4,
    C4,
    GATE4,
    GUARD,
    MOMENT,
    SNAT,
    A,
    B,
    C,
    Capture,
    arrived,
    ipv4,
    link,
    program,
    receiver,
    run,
    send_ip,
    send_udp,
    silent,
    table,
    udp_header,
)

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

OVERLAY, FAR = "10.77.200.1", "10.77.200.2"
X = "192.0.2.2"
"""On B's link, in no list."""

PORT = 4789
MAC_A, MAC_B = "02:00:00:00:aa:01", "02:00:00:00:bb:01"

SEND = """
import socket, sys
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
    sender.sendto(bytes.fromhex(sys.argv[2]), (sys.argv[1], int(sys.argv[3])))
"""


@pytest.fixture(params=["vxlan", "geneve"])
def kind(request: pytest.FixtureRequest) -> str:
    """Each kind, between A and B, and X beside B."""
    kind = str(request.param)
    tried = subprocess.run(
        (
            "ip",
            "-n",
            A,
            "link",
            "add",
            "try",
            "type",
            kind,
            "id",
            "9",
            "remote",
            B4,
            "dstport",
            "9999",
        ),
        capture_output=True,
        check=False,
        timeout=20,
    )
    if tried.returncode:
        pytest.skip(f"this kernel has no {kind}")
    ips("link del try", netns=A)
    ips(f"addr add {X}/24 dev b0", netns=B)
    ips("route add 192.0.2.0/24 dev a0", netns=A)
    for ns, mac, own, far, address, uplink in (
        (A, MAC_A, A4, B4, OVERLAY, "a0"),
        (B, MAC_B, B4, A4, FAR, "b0"),
    ):
        local = f"local {own} dev {uplink}" if kind == "vxlan" else ""
        ips(
            f"link add vx type {kind} id 7 {local} remote {far} dstport {PORT}",
            f"link set vx address {mac}",
            "link set vx up",
            f"addr add {address}/24 dev vx",
            netns=ns,
        )
    ips(f"neigh add {FAR} lladdr {MAC_B} dev vx", netns=A)
    ips(f"neigh add {OVERLAY} lladdr {MAC_A} dev vx", netns=B)
    for name in ("all", "a0", "ac0", "vx"):
        run("sysctl", "-qw", f"net.ipv4.conf.{name}.rp_filter=0", ns=A)
    return kind


def guard(*, ports: tuple[int, ...] = (PORT,), ipsec: bool = False) -> None:
    """A's, as the agent has it there.

    Args:
        ipsec: what travels between A and B counts as carried by IPsec.
    """
    text = ruleset(GUARD)
    for word, peer in (("rt ipsec exists", "daddr"), ("meta ipsec exists", "saddr")):
        assert word in text
        text = text.replace(word, f"ip {peer} {B4}" if ipsec else word)
    text += exempt_update([link(A, "vx"), link(A, "ac0")], ports)
    run("nft", "-f", "-", ns=A, text=text)


def checksummed(packet: bytes) -> bytes:
    """With length and checksum in its header, which nobody fills in inside a tunnel."""
    head = packet[:2] + struct.pack("!H", len(packet)) + packet[4:10] + bytes(2) + packet[12:20]
    total = sum(struct.unpack("!10H", head))
    total = (total & 0xFFFF) + (total >> 16)
    return head[:10] + struct.pack("!H", ~total & 0xFFFF) + head[12:] + packet[20:]


def forged(kind: str, payload: bytes, *, back: bool = False) -> bytes:
    """What B's end of the tunnel would send from its inner address to A's, or A's to B's."""
    ends = (OVERLAY, FAR) if back else (FAR, OVERLAY)
    inner = checksummed(ipv4(*ends, 17, udp_header((1234, 9), payload)))
    macs = bytes.fromhex((MAC_B + MAC_A if back else MAC_A + MAC_B).replace(":", ""))
    head = {"vxlan": (0x08000000, 7 << 8), "geneve": (0x6558, 7 << 8)}[kind]
    return struct.pack("!II", *head) + macs + b"\x08\x00" + inner


def reach(kind: str) -> set[str]:
    """Whose forged packets arrive at A's overlay address."""
    ips("addr add 10.77.5.1/32 dev ac0", "route add 10.77.5.5/32 dev ac0", netns=A)
    ips("addr add 10.77.5.5/32 dev c0", netns=C)
    everywhere = "255.255.255.255"
    with receiver(A, "0.0.0.0") as at_a:
        send_udp(B, X, A4, forged(kind, b"X"), ports=(0, PORT))
        send_udp(B, X, GATE4, forged(kind, b"X to another"), ports=(0, PORT))
        send_udp(C, C4, GATE4, forged(kind, b"container's gateway"), ports=(0, PORT))
        send_udp(C, C4, A4, forged(kind, b"container"), ports=(0, PORT))
        send_udp(C, "10.77.5.5", A4, forged(kind, b"container in list"), ports=(0, PORT))
        whole = udp_header((0, PORT), forged(kind, b"container as B"))
        send_ip(C, A4, ipv4(B4, A4, 17, whole))
        broadcast = "import socket, sys\ns = socket.socket(2, 2)\ns.setsockopt(1, 6, 1)\n"
        broadcast += f"s.bind(('{X}', 0))\ns.setsockopt(1, 25, b'b0')\n"
        broadcast += "s.sendto(bytes.fromhex(sys.argv[1]), (sys.argv[2], int(sys.argv[3])))\n"
        program(B, broadcast, forged(kind, b"X to all").hex(), everywhere, str(PORT))
        for target in (A4, "127.0.0.1", GATE4):
            payload = forged(kind, f"nobody to {target}".encode())
            program(A, SEND, target, payload.hex(), str(PORT), user=65534)
        program(A, SEND, A4, forged(kind, b"root").hex(), str(PORT))
        found = set()
        while (one := arrived(at_a, MOMENT)) is not None:
            found.add(one.decode())
    return found


def test_nobody_else_reaches_its_port(kind: str) -> None:
    """Not who is in no list, a container, or a user of the VM; without the ports most of them."""
    guard(ports=())
    before = reach(kind)
    assert {"X", "X to another", "X to all", "container's gateway", "container"} <= before
    assert {
        "container in list",
        "container as B",
        f"nobody to {A4}",
        "nobody to 127.0.0.1",
        "root",
    } <= before
    ips("addr del 10.77.5.1/32 dev ac0", "route del 10.77.5.5/32 dev ac0", netns=A)
    ips("addr del 10.77.5.5/32 dev c0", netns=C)

    guard()

    assert reach(kind) == set()
    counted = table(A)
    assert {X, C4, B4} <= {str(peer.address) for peer in counted.clear_in}
    assert (counted.dropped_in, counted.dropped_out) == (7, 4)
    assert counted.overlay_ports == (PORT,)


@pytest.mark.parametrize("user", [0, 65534])
def test_its_own_packets_pass(kind: str, user: int) -> None:
    """Of any user's program, both ways, through IPsec; in clear they are dropped as the VM's own.

    What IPsec would carry is told by its addresses here: this kernel has no ESP.
    """
    assert kind
    guard()
    with receiver(B, FAR) as at_b:
        program(A, SEND, FAR, b"early".hex(), "9", user=user)
        assert silent(at_b)
    guard(ipsec=True)

    with receiver(B, FAR) as at_b:
        assert program(A, SEND, FAR, b"to B".hex(), "9", user=user)
        assert arrived(at_b) == b"to B"
    with receiver(A, OVERLAY) as at_a:
        program(B, SEND, OVERLAY, b"to A".hex(), "9", user=user)
        assert arrived(at_a) == b"to A"


def test_a_user_does_not_reach_the_peers_port(kind: str) -> None:
    """There IPsec says that it comes from this VM; nor does a container's user, translated."""
    run("nft", "-f", "-", ns=A, text=SNAT)
    with receiver(B, "0.0.0.0") as at_b:
        for ports, expected in (((), True), ((PORT,), False)):
            guard(ports=ports, ipsec=True)
            for ns in (A, C):
                program(
                    ns, SEND, B4, forged(kind, b"forged", back=True).hex(), str(PORT), user=65534
                )
                if expected:
                    assert arrived(at_b) == b"forged", ns
                else:
                    assert silent(at_b), ns


def test_nothing_leaves_to_who_is_in_no_list(kind: str) -> None:
    """Whoever leads the tunnel there."""
    guard()
    if kind == "vxlan":
        run("bridge", "fdb", "replace", MAC_B, "dev", "vx", "dst", X, ns=A)
    else:
        ips("link del vx", f"link add vx type geneve id 7 remote {X} dstport {PORT}", netns=A)
        ips(
            f"link set vx address {MAC_A} up",
            f"addr add {OVERLAY}/24 dev vx",
            f"neigh add {FAR} lladdr {MAC_B} dev vx",
            netns=A,
        )
    with Capture(B, "b0") as wire:
        program(A, SEND, FAR, b"secret".hex(), "9", user=65534)
        assert not [seen for seen in wire.packets() if b"secret" in seen.raw]
        program(A, SEND, X, b"plain".hex(), "9", user=65534)
        assert wire.matching(lambda seen: b"plain" in seen.raw, 1)
