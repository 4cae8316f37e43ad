"""A job that needs its network until its own end, as an NFS client does.

Called with a FILE. Told to end by SIGTERM, it asks its peer ASKED times, needs every answer, and
writes into the file how many came.
"""

import json
import os
import signal
import socket
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from tests.boot.place import PEER, PORT

ASKED = 100
PAUSE = 0.02


def main(file: Path) -> None:
    """Wait for the end, ask, and say how many answers came; the file's place soon is no more."""
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    signal.sigwait({signal.SIGTERM})
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
    with file.open("w") as out:
        json.dump(said, out)
        out.flush()
        os.fsync(out.fileno())


if __name__ == "__main__":
    main(Path(sys.argv[1]))
