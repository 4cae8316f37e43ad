"""The capture: counts the frames that enter a bridge, by source, destination and kind.

What it counts most, the ESP of a pair under flood, the kernel can count for it.
"""

import contextlib
import select
import socket
import struct
import threading
import time
from collections import Counter
from collections.abc import Sequence
from typing import Self

from tests.lab import frame_filter
from tests.lab.frames import SNAP, Key, Kind, Reader
from tests.lab.namespaces import inside

ETH_P_ALL = 3
SOL_PACKET, PACKET_STATISTICS, PACKET_IGNORE_OUTGOING = 263, 6, 23
SO_RCVBUFFORCE = 33
BUFFER = 256 << 20
PLANTED = b"planted by the judge"


def _opened(program: frame_filter.Program, buffer: int) -> socket.socket:
    """A packet socket (packet(7)) in this thread's namespace that sees what enters."""
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_RAW, socket.htons(ETH_P_ALL))
    frame_filter.attach(opened, program)
    opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, buffer)
    # A bridged frame enters one port and leaves another: it is counted where it enters.
    opened.setsockopt(SOL_PACKET, PACKET_IGNORE_OUTGOING, 1)
    # What came before the filter was there does not count.
    _statistics(opened)
    return opened


def _statistics(opened: socket.socket) -> tuple[int, int]:
    """Frames that passed the filter, and how many of them found no room; it resets both."""
    passed, dropped = struct.unpack("II", opened.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8))
    return passed, dropped


class Capture:
    """Counts what enters a bridge, from the moment it is entered until it is stopped.

    Attributes:
        counts: frames by source, destination and kind, without the planted ones.
        examples: the first frame of each.
        planted: planted frames by source and destination.
        dropped: frames that the kernel could not hand over; known after `stop`.
        began, ended: the window, by time.monotonic.
    """

    def __init__(
        self, hub: str, *, encapsulated: bool = False, pairs: Sequence[tuple[str, str]] = ()
    ) -> None:
        """Prepare a capture in the namespace of a bridge whose ports are called p1, p2 …

        Args:
            pairs: addresses between which the kernel counts ESP, without a look at each frame. In
                the lab's guest that look takes more of the machine than the flood itself.
        """
        self.counts: Counter[Key] = Counter()
        self.examples: dict[Key, bytes] = {}
        self.planted: Counter[tuple[str, str]] = Counter()
        self.dropped = 0
        self.began = self.ended = 0.0
        self._hub = hub
        self._reader = Reader(encapsulated)
        self._directions = (*pairs, *((other, one) for one, other in pairs))
        self._counters: dict[Key, socket.socket] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        with inside(self._hub):
            bridges = [index for index, name in socket.if_nameindex() if name.startswith("br")]
            # The counters first: a frame may be seen twice, but not by nobody.
            for one, other in self._directions:
                program = frame_filter.counting(one, other, bridges)
                self._counters[one, other, Kind.ESP] = _opened(program, 0)
            program = frame_filter.leaving_out(self._directions, SNAP)
            self._socket = _opened(program, BUFFER)
        self._socket.settimeout(0)
        self.began = time.monotonic()
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()
        self._socket.close()
        for counter in self._counters.values():
            counter.close()

    def stop(self) -> None:
        """End the window, and count all that has arrived within it; once is enough."""
        if self.ended:
            return
        frame_filter.attach(self._socket, frame_filter.NOTHING)
        self.ended = time.monotonic()
        self._stop.set()
        self._thread.join(120)
        assert not self._thread.is_alive(), "the capture does not end: it is no judge"
        self.dropped = _statistics(self._socket)[1]
        for key, counter in self._counters.items():
            # All that matched: what had no room in the buffer is counted, too.
            self.counts[key] += _statistics(counter)[0]

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
        return {key[:2]: count for key, count in dict(self.counts).items() if key[2] is Kind.CLEAR}
