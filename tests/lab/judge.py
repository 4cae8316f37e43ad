"""The judge: says that between two addresses there was nothing but ESP, where it could know."""

import os
import socket
import struct
import time
from collections.abc import Sequence
from ipaddress import ip_address

from tests.charon.nodes import SCALE
from tests.lab.frames import IPV4, IPV6, UDP, Kind
from tests.lab.namespaces import inside
from tests.lab.traffic import Flow
from tests.lab.wire import PLANTED, Capture

Pair = tuple[str, str, str]
"""An address of a VM, an address of its peer, and the VM's link that leads there."""


def plant(netns: str, source: str, destination: str, link: str = "eth0") -> None:
    """Put one clear packet on the wire, past the kernel's IPsec and nftables, from a VM's link.

    It goes to a hardware address that nobody has, so that no VM hears it.
    """
    ends = ip_address(source).packed + ip_address(destination).packed
    udp = struct.pack("!HHHH", 40000, 40000, 8 + len(PLANTED), 0) + PLANTED
    if len(ends) == 8:
        kind = IPV4
        head = struct.pack("!BBHHHBBH", 0x45, 0, 20 + len(udp), 0, 0, 64, UDP, 0)
    else:
        kind = IPV6
        head = struct.pack("!IHBB", 6 << 28, len(udp), UDP, 64)
    with inside(netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind((link, 0))
        raw.send(b"\x02" + os.urandom(5) + b"\x02" + os.urandom(5) + kind + head + ends + udp)


def end(capture: Capture, netns: str, one: str, other: str, link: str = "eth0") -> None:
    """End a capture that can convict: it finds one clear packet that is planted now.

    Args:
        netns: of the VM with the address `one`, from which the planted packet goes to `other`.

    Raises:
        AssertionError: the capture lost frames, or missed the planted one, and so is no judge.
    """
    find_planted(capture, netns, one, other, link)
    capture.stop()
    assert capture.dropped == 0, f"the capture lost {capture.dropped} frames: it is no judge"
    assert capture.planted[one, other] == 1, "the capture missed the planted packet: it is no judge"


def find_planted(capture: Capture, netns: str, one: str, other: str, link: str) -> None:
    """Plant a clear packet, and wait a while until the capture has it; it goes on."""
    plant(netns, one, other, link)
    deadline = time.monotonic() + 5 * SCALE
    while not capture.planted[one, other] and not capture.ended and time.monotonic() < deadline:
        time.sleep(0.05)


def assert_only_esp(
    capture: Capture,
    netns: str,
    one: str,
    other: str,
    *flows: Flow,
    at_least: int,
    esp: int = 1,
    further: Sequence[Pair] = (),
) -> None:
    """Judge a capture, and end it: between two addresses nothing but ESP and IKE.

    Args:
        netns: of the VM with the address `one`, from which the planted packet goes.
        flows: what was tried between the two addresses.
        at_least: how often it must have been tried within the window.
        esp: how many packets of ESP there must be.
        further: other addresses of the two VMs, for which the same holds.

    Raises:
        AssertionError: clear packets; or the capture lost some, saw too little ESP, missed the
            planted packet or a part of what was tried, and so cannot be a judge.
    """
    for own, peer, link in further:
        find_planted(capture, netns, own, peer, link)
    end(capture, netns, one, other)
    for flow in flows:
        assert capture.began <= flow.began, "the flow began before the capture: it is no judge"
        assert flow.ended <= capture.ended, "the flow outlasts the capture: it is no judge"
    attempts = sum(flow.attempts for flow in flows)
    assert attempts >= at_least, f"only {attempts} of {at_least} attempts: no judgement"
    for own, peer, _ in further:
        assert capture.planted[own, peer] == 1, f"no packet planted from {own} was seen: no judge"
    pairs = [(one, other), *(pair[:2] for pair in further)]
    for pair in pairs:
        _nothing_clear(capture, *pair)
    seen = sum(capture.between(*pair, Kind.ESP) for pair in pairs)
    assert seen >= esp, f"{seen} packets of ESP, where {esp} were to be expected"


def _nothing_clear(capture: Capture, one: str, other: str) -> None:
    clear = capture.between(one, other, Kind.CLEAR)
    shown = [
        capture.examples[key].hex(" ")
        for key in ((one, other, Kind.CLEAR), (other, one, Kind.CLEAR))
        if key in capture.examples
    ]
    assert clear == 0, f"{clear} clear packets between {one} and {other}: {shown}"
