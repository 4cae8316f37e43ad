"""The capture that judges: frames that enter the bridge, by source, destination and kind."""

import contextlib
import ctypes
import enum
import os
import select
import socket
import struct
import threading
from collections import Counter
from collections.abc import Iterator
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

ETH_P_ALL = 3
PACKET_OUTGOING = 4
SOL_PACKET, PACKET_STATISTICS = 263, 6
SO_RCVBUFFORCE = 33
CLONE_NEWNET = 0x40000000
ESP, UDP = 50, 17
IKE_PORTS = {500, 4500}
PLANTED = b"planted by the judge"


class Kind(enum.StrEnum):
    """What a frame is to the judge."""

    ESP = "esp"
    IKE = "ike"
    CLEAR = "clear"
    OTHER = "other"  # ARP and what is no IPv4


@contextlib.contextmanager
def inside(netns: str) -> Iterator[None]:
    """Run in a network namespace; a socket made there stays there (setns(2), this thread only)."""
    libc = ctypes.CDLL(None, use_errno=True)
    with (
        Path("/proc/thread-self/ns/net").open("rb") as home,
        Path("/run/netns", netns).open("rb") as there,
    ):
        if libc.setns(there.fileno(), CLONE_NEWNET):
            raise OSError(ctypes.get_errno(), f"setns {netns}")
        try:
            yield
        finally:
            if libc.setns(home.fileno(), CLONE_NEWNET):
                raise OSError(ctypes.get_errno(), "setns back")


def kind_of(frame: bytes) -> tuple[str, str, Kind]:
    """Source, destination and kind of an Ethernet frame."""
    if frame[12:14] != b"\x08\x00" or len(frame) < 34:
        return "", "", Kind.OTHER
    source, destination = str(IPv4Address(frame[26:30])), str(IPv4Address(frame[30:34]))
    protocol, header = frame[23], (frame[14] & 15) * 4
    if protocol == ESP:
        return source, destination, Kind.ESP
    if protocol == UDP:
        ports = set(struct.unpack("!HH", frame[14 + header : 18 + header]))
        if ports <= IKE_PORTS:
            return source, destination, Kind.IKE
    return source, destination, Kind.CLEAR


class Capture:
    """Counts the frames that enter a bridge, from `start` to `stop`."""

    def __init__(self, hub: str) -> None:
        self.counts: Counter[tuple[str, str, Kind]] = Counter()
        self.examples: dict[tuple[str, str, Kind], bytes] = {}
        self.planted: Counter[tuple[str, str]] = Counter()
        self.dropped = 0
        self._hub = hub
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        with inside(self._hub):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 256 << 20)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._thread.is_alive():
            self.stop()
        self._socket.close()

    def stop(self) -> None:
        """End the capture once all that has arrived is counted."""
        self._stop.set()
        self._thread.join(60)
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.dropped = struct.unpack("II", statistics)[1]

    def _run(self) -> None:
        while True:
            ready, _, _ = select.select([self._socket], [], [], 0.2)
            if not ready:
                if self._stop.is_set():
                    return
                continue
            frame, address = self._socket.recvfrom(256)
            # Each frame is seen where it enters a port and where it leaves one: count it once;
            # of the bridge's own device it would be a third time.
            if address[2] == PACKET_OUTGOING or not address[0].startswith("p"):
                continue
            self._count(frame)

    def _count(self, frame: bytes) -> None:
        source, destination, kind = kind_of(frame)
        if kind is Kind.CLEAR and PLANTED in frame:
            self.planted[source, destination] += 1
            return
        self.counts[source, destination, kind] += 1
        self.examples.setdefault((source, destination, kind), frame[:96])

    def between(self, one: str, other: str, kind: Kind) -> int:
        """Frames of a kind between two addresses, both ways."""
        return self.counts[one, other, kind] + self.counts[other, one, kind]


def plant(netns: str, source: str, destination: str) -> None:
    """Put one clear packet on the wire, past the kernel's IPsec, from a VM's own link."""
    payload = PLANTED
    udp = struct.pack("!HHHH", 40000, 40000, 8 + len(payload), 0) + payload
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x45,
        0,
        20 + len(udp),
        0,
        0,
        64,
        UDP,
        0,
        IPv4Address(source).packed,
        IPv4Address(destination).packed,
    )
    with inside(netns), socket.socket(socket.AF_PACKET, socket.SOCK_RAW) as raw:
        raw.bind(("eth0", 0))
        raw.send(b"\xff" * 6 + b"\x02" + os.urandom(5) + b"\x08\x00" + head + udp)


def assert_only_esp(capture: Capture, netns: str, one: str, other: str) -> None:
    """Judge a capture, and end it: between two addresses nothing but ESP and IKE.

    Args:
        netns: of the VM with the address `one`, from which the planted packet goes.

    Raises:
        AssertionError: clear packets; or the capture lost some, saw no ESP, or missed the planted
            one, and so cannot be a judge.
    """
    plant(netns, one, other)
    capture.stop()
    assert capture.dropped == 0, f"the capture lost {capture.dropped} frames: it is no judge"
    assert capture.planted[one, other] == 1, "the capture missed the planted packet: it is no judge"
    clear = capture.between(one, other, Kind.CLEAR)
    shown = [capture.examples.get((a, b, Kind.CLEAR)) for a, b in ((one, other), (other, one))]
    assert clear == 0, f"{clear} clear packets: {shown}"
    assert capture.between(one, other, Kind.ESP) > 0, "no ESP at all"
