"""What the job does as it is stopped: it asks its peer ASKED times, and needs every answer."""

import json
import os
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.boot.place import PEER, PORT, RESULTS

ASKED = 100
PAUSE = 0.02


def main() -> None:
    """Ask, and say how many answers came; /results is still there, and soon is not."""
    began = time.monotonic()
    answered = 0
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.settimeout(5)
        for number in range(ASKED):
            try:
                channel.sendto(f"farewell {number}".encode(), (PEER, PORT))
                answered += channel.recv(512) == f"farewell {number}".encode()
            except OSError:
                continue
            time.sleep(PAUSE)
    said = {"asked": ASKED, "answered": answered, "began": began, "ended": time.monotonic()}
    with (RESULTS / "farewell.json").open("w") as file:
        json.dump(said, file)
        file.flush()
        os.fsync(file.fileno())


if __name__ == "__main__":
    main()
