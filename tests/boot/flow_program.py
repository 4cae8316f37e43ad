"""One end of the traffic that lives from before the boot until the power goes.

Called with `ask FILE ADDRESS PORT RATE` or `answer ADDRESS PORT`. The one who asks keeps a tally in
FILE: what it sent, what the kernel refused, what was answered, and what was not answered within
PATIENCE seconds.
"""

import errno
import json
import os
import socket
import sys
import time

PATIENCE = 5.0
TICK = 0.03
EVERY = 0.1
WIDTH = 512
"""Bytes of the tally, always the same, so that a reader sees one write or the other."""


class Asker:
    """Numbered datagrams at a steady rate, and their answers."""

    def __init__(self, file: str, address: str, port: int, rate: int) -> None:
        self._file = os.open(file, os.O_RDWR | os.O_CREAT, 0o644)
        self._to = (address, port)
        self._rate = rate
        self._socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self._socket.setblocking(False)
        self._waiting: dict[bytes, float] = {}
        self._refused: dict[str, int] = {}
        self._sent = self._answered = self._lost = 0

    def run(self) -> None:
        """Ask for ever."""
        began = told = time.monotonic()
        done = 0
        while True:
            now = time.monotonic()
            # What a slow machine could not send in time is not made good beyond a second.
            done = max(done, int((now - began - 1) * self._rate))
            while done < (now - began) * self._rate:
                done += 1
                self._ask(done.to_bytes(8, "big"), now)
            self._listen()
            if now - told >= EVERY:
                told = now
                self._tell(now)
            time.sleep(TICK)

    def _ask(self, number: bytes, now: float) -> None:
        try:
            self._socket.sendto(number * 8, self._to)
        except OSError as error:
            name = errno.errorcode.get(error.errno or 0, "?")
            self._refused[name] = self._refused.get(name, 0) + 1
        else:
            self._sent += 1
            self._waiting[number] = now

    def _listen(self) -> None:
        while True:
            try:
                answer = self._socket.recv(512)
            except OSError:
                return
            if self._waiting.pop(answer[:8], None) is not None:
                self._answered += 1

    def _tell(self, now: float) -> None:
        while self._waiting:
            number, when = next(iter(self._waiting.items()))
            if now - when < PATIENCE:
                break
            del self._waiting[number]
            self._lost += 1
        found = {
            "sent": self._sent,
            "refused": self._refused,
            "answered": self._answered,
            "lost": self._lost,
        }
        os.pwrite(self._file, json.dumps(found).ljust(WIDTH).encode(), 0)


def answer(address: str, port: int) -> None:
    """Send every datagram back, for ever."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as source:
        source.bind((address, port))
        while True:
            try:
                message, sender = source.recvfrom(512)
                source.sendto(message, sender)
            except OSError:
                # The kernel refuses what is in clear; the asker counts that nothing came.
                continue


if __name__ == "__main__":
    role, *rest = sys.argv[1:]
    if role == "ask":
        Asker(rest[0], rest[1], int(rest[2]), int(rest[3])).run()
    else:
        answer(rest[0], int(rest[1]))
