"""The guard and senders that not every kernel has: sockets of AF_SMC, and containers in a VRF."""

import subprocess

import pytest

from ipsec_agent.core.guard_table import exempt_update
from tests.kernel.guard_lab import (
    A4,
    B4,
    B6,
    C4,
    SNAT,
    A,
    B,
    C,
    Capture,
    link,
    load,
    program,
    receiver,
    run,
    send_udp,
    table,
)
from tests.kernel.test_guard_closed import greets

pytestmark = [pytest.mark.esp, pytest.mark.timeout(200), pytest.mark.usefixtures("guarded")]

NOBODYS = "fd99::9"
IKE = bytes(4) + b"clear"

SMC = """
import ctypes, socket, struct, sys, time
s = socket.socket(43, socket.SOCK_STREAM, 1)
s.setsockopt(socket.IPPROTO_IPV6, 78, 1)
s.setblocking(False)
for call, address, port in (("bind", sys.argv[1], 0), ("connect", sys.argv[2], 9)):
    own = struct.pack("=H", 10) + struct.pack("!HI", port, 0)
    own += socket.inet_pton(socket.AF_INET6, address) + bytes(4)
    failed = getattr(ctypes.CDLL(None), call)(s.fileno(), own, len(own))
    assert call == "connect" or not failed
time.sleep(0.1)
"""
"""Binds to an IPv6 address that nobody has (IPV6_FREEBIND), and connects."""


def has_module(name: str) -> None:
    """Load a module of the kernel's, or skip the test where there is none."""
    if subprocess.run(["modprobe", name], check=False, capture_output=True).returncode:
        pytest.skip(f"this kernel has no {name}")


def test_a_socket_that_connects_by_one_of_the_kernels(wire: Capture) -> None:
    """The kernel's own socket has no user, and the address that it speaks from is nobody's."""
    has_module("smc")
    program(A, SMC, NOBODYS, B6, user=65534)
    assert wire.between(NOBODYS, B6), "it leaves without a guard"
    load(A)

    program(A, SMC, NOBODYS, B6, user=65534)

    assert not wire.between(NOBODYS, B6)
    assert [str(peer.address) for peer in table(A).misplaced] == [NOBODYS]


def test_a_router_goes_on(wire: Capture) -> None:
    """What begins a connection and is forwarded from an address in no list is no program's."""
    load(A)
    assert greets(C, B, B4, 9)
    assert wire.between(C4, B4, 1)
    assert table(A).misplaced == ()


@pytest.mark.parametrize("exempt", [False, True])
def test_a_container_in_a_vrf_speaks_no_ike(wire: Capture, *, exempt: bool) -> None:
    """There the VM's address is in another table, and what a container sends comes by the VRF."""
    has_module("vrf")
    for line in (
        "link add vrf0 type vrf table 10",
        "link set vrf0 up",
        "link set a0 master vrf0",
        "link set ac0 master vrf0",
    ):
        run("ip", *line.split(), ns=A)
    run("nft", "-f", "-", ns=A, text=SNAT)
    with receiver(B, B4, 4500):
        assert send_udp(C, C4, B4, IKE, ports=(4500, 4500))
        assert len(wire.between(A4, B4)) == 1
        load(A, more=exempt_update([link(A, "ac0")] if exempt else []))

        assert send_udp(C, C4, B4, IKE, ports=(4500, 4500))

        assert not wire.between(A4, B4)
    assert [str(peer.address) for peer in table(A).clear_out] == [B4]
