"""The capture that outlives the shutdown: tells a serial line what it saw, until the power goes.

Called with the serial line and the directory of the flows' tallies. Each line is one JSON document;
one comes every EVERY seconds, and at once after a clear packet between the VMs.
"""

import json
import struct
import sys
import threading
import time
from pathlib import Path

from tests.boot.place import BARE, BARE_NS, HUB, VM
from tests.lab.frames import Kind
from tests.lab.judge import plant
from tests.lab.wire import PACKET_STATISTICS, SOL_PACKET, Capture

EVERY = 0.4
TICK = 0.05
PLANT_EVERY = 1.0


def planting(told: list[int]) -> None:
    """Plant a clear packet again and again, so that each span of time has its own."""
    while True:
        plant(BARE_NS, BARE, VM)
        told[0] += 1
        time.sleep(PLANT_EVERY)


def tallies(directory: Path) -> dict[str, object]:
    """What the flows say; one that is being written keeps its place with null."""
    found: dict[str, object] = {}
    for path in sorted(directory.glob("*.flow")):
        try:
            found[path.stem] = json.loads(path.read_text())
        except ValueError:
            found[path.stem] = None
    return found


def record(line: Path, directory: Path) -> None:
    """Tell for ever."""
    planted = [0]
    dropped = 0
    told, clear_before = 0.0, 0
    with Capture(HUB) as capture, line.open("w", buffering=1) as out:
        threading.Thread(target=planting, args=(planted,), daemon=True).start()
        while True:
            now = time.monotonic()
            counts = dict(capture.counts)
            clear = sum(
                count for key, count in counts.items() if key[2] is Kind.CLEAR and key[0] != BARE
            )
            if now - told >= EVERY or clear != clear_before:
                told, clear_before = now, clear
                # The kernel forgets the figure as it tells it (packet(7)).
                statistics = capture._socket.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
                dropped += struct.unpack("II", statistics)[1]
                document = {
                    "at": now,
                    "counts": [[*key, count] for key, count in counts.items() if key[0]],
                    "examples": {
                        f"{key[0]}>{key[1]}": frame.hex()
                        for key, frame in dict(capture.examples).items()
                        if key[2] is Kind.CLEAR
                    },
                    "planted": planted[0],
                    "found": sum(dict(capture.planted).values()),
                    "dropped": dropped,
                    "flows": tallies(directory),
                }
                out.write(json.dumps(document) + "\n")
            time.sleep(TICK)


if __name__ == "__main__":
    record(Path(sys.argv[1]), Path(sys.argv[2]))
