"""The capture: counts the frames that enter a bridge, by source, destination and kind."""

import contextlib
import ctypes
import select
import socket
import struct
import threading
import time
from collections import Counter
from typing import Self

from tests.lab.frames import SNAP, Key, Kind, Reader
from tests.lab.namespaces import inside

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
BUFFER = 256 << 20
PLANTED = b"planted by the judge"


class Capture:
    """Counts what enters a bridge, from the moment it is entered until it is stopped.

    Attributes:
        counts: frames by source, destination and kind, without the planted ones.
        examples: the first frame of each.
        planted: planted frames by source and destination.
        dropped: frames that the kernel could not hand over; known after `stop`.
        began, ended: the window, by time.monotonic.
    """

    def __init__(self, hub: str, *, encapsulated: bool = False) -> None:
        """Prepare a capture in the namespace of a bridge whose ports are called p1, p2 …"""
        self.counts: Counter[Key] = Counter()
        self.examples: dict[Key, bytes] = {}
        self.planted: Counter[tuple[str, str]] = Counter()
        self.dropped = 0
        self.began = self.ended = 0.0
        self._hub = hub
        self._reader = Reader(encapsulated)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        with inside(self._hub):
            self._socket = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, BUFFER)
        # A bridged frame enters one port and leaves another: it is counted where it enters.
        self._socket.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
        self._socket.settimeout(0)
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._socket.close()

    def stop(self) -> None:
        """End the window, and count all that has arrived within it; once is enough."""
        if self.ended:
            return
        nothing = ctypes.create_string_buffer(struct.pack("HBBI", 6, 0, 0, 0))
        program = struct.pack("HP", 1, ctypes.addressof(nothing))
        self._socket.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, program)
        self.ended = time.monotonic()
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the capture does not end: it is no judge"
        statistics = self._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        self.dropped = struct.unpack("II", statistics)[1]

    def _run(self) -> None:
        while True:
            stopping = self._stop.is_set()
            select.select([self._socket], [], [], 0 if stopping else 0.1)
            with contextlib.suppress(BlockingIOError):
                while True:
                    frame, address = self._socket.recvfrom(SNAP)
                    # The bridge's own device shows a flooded frame once more.
                    if address[0].startswith("p"):
                        self._count(frame)
            if stopping:
                return

    def _count(self, frame: bytes) -> None:
        key = self._reader.kind(frame)
        if key[2] is Kind.CLEAR and PLANTED in frame:
            self.planted[key[0], key[1]] += 1
            return
        self.counts[key] += 1
        if key not in self.examples:
            self.examples[key] = frame

    def between(self, one: str, other: str, kind: Kind) -> int:
        """Frames of a kind between two addresses, both ways."""
        return self.counts[one, other, kind] + self.counts[other, one, kind]

    def clear(self) -> dict[tuple[str, str], int]:
        """Clear frames by source and destination."""
        return {key[:2]: count for key, count in self.counts.items() if key[2] is Kind.CLEAR}
