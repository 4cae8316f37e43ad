"""A program that passes for our charon, and answers late."""

import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.charon.nodes import until

PROGRAM = """
import socket, sys, threading, time
from vici.protocol import Message, Packet
path, delay, busy = sys.argv[1], float(sys.argv[2]), len(sys.argv) > 3
def work():
    while busy:
        pass
def serve(channel):
    with channel:
        while head := channel.recv(4):
            body = channel.recv(int.from_bytes(head, "big"))
            time.sleep(delay)
            if body[0] in {3, 4}:  # an event is registered, or no more
                answer = bytes([5])
            else:
                answer = bytes([1]) + Message.serialize({"version": "slow"})
            channel.sendall(len(answer).to_bytes(4, "big") + answer)
threading.Thread(target=work, daemon=True).start()
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(path)
    listener.listen(128)
    while True:
        threading.Thread(target=serve, args=(listener.accept()[0],), daemon=True).start()
"""
"""Answers every request after a delay; of charon it knows no more. It may do much meanwhile."""


def listens(path: Path) -> bool:
    """Whether it takes connections at its socket: for a moment that is bound only, and refuses."""
    with socket.socket(socket.AF_UNIX) as caller:
        return caller.connect_ex(str(path)) == 0


@contextmanager
def charon(directory: Path, delay: float, *, busy: bool = False) -> Iterator[None]:
    """A program that passes for our charon."""
    program = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(directory / "charon.vici"), str(delay)]
        + ["busy"] * busy,
        env={**os.environ, "STRONGSWAN_CONF": str(directory / "strongswan.conf")},
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: listens(directory / "charon.vici"), "it listens")
        yield
    finally:
        program.kill()
        program.wait(20)
