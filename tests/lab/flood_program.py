"""One end of a flood, a program of its own so that neither capture nor test slows it.

Called as `flood_program.py ROLE ADDRESS PORT RATE SECONDS [SOURCE]`; ROLE is udp-send, udp-take,
tcp-send or tcp-take. It says "ready", answers each line on its standard input by what happened so
far as a line of JSON, and ends after that many seconds or when its standard input ends, with a last
such line. Imports are few: each costs tens of milliseconds in the lab's guest.
"""

import errno
import json
import os
import select
import socket
import sys
import time
from collections.abc import Callable

TICK = 0.02
"""Seconds between bursts, and between looks for what came: each wake-up costs a slow machine."""

BURSTS = 4
"""Bursts in a second at the least: what is due beyond that is not made good."""

GAP = 0.1
SIZE = 64
BROKEN_AFTER = 1000
"""Milliseconds without an answer after which a TCP connection is made anew: the kernel's own
retransmissions grow rarer and rarer, and would be a pause of their own."""

IP_FREEBIND, TCP_USER_TIMEOUT, SO_RCVBUFFORCE = 15, 18, 33


def family(address: str) -> socket.AddressFamily:
    """The family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


class Asker:
    """Whoever started this program: asks by lines, and ends it by closing its standard input."""

    def __init__(self, found: Callable[[], dict[str, object]]) -> None:
        self._found = found

    def hear(self, wait: float) -> bool:
        """Wait for some seconds, or for a question; False once it is time to end."""
        if not select.select([sys.stdin], [], [], max(wait, 0))[0]:
            return True
        lines = os.read(sys.stdin.fileno(), 4096)
        for _ in range(lines.count(b"\n")):
            self.tell()
        return bool(lines)

    def tell(self) -> None:
        """Say what happened so far."""
        sys.stdout.write(json.dumps(self._found() | {"at": time.monotonic()}) + "\n")
        sys.stdout.flush()


class Tally:
    """What a sender could hand to the kernel, and what the kernel refused."""

    def __init__(self) -> None:
        self.began = time.monotonic()
        self.sent = 0
        self.refused: dict[str, int] = {}

    def refuse(self, error: OSError) -> None:
        """Count an error by its name."""
        name = errno.errorcode.get(error.errno or 0, "?")
        self.refused[name] = self.refused.get(name, 0) + 1

    def found(self) -> dict[str, object]:
        """What happened so far."""
        return {"began": self.began, "sent": self.sent, "refused": self.refused}


def paced(
    rate: int, seconds: float, tally: Tally, send: Callable[[bytes], object], asker: Asker
) -> None:
    """Send at a rate until the end; what a slow machine could not send in a second is made good."""
    began = time.monotonic()
    done = 0
    while (spent := time.monotonic() - began) < seconds:
        due = int(spent * rate)
        # After a longer silence it was held, and a burst would be no flood: the kernel drops what a
        # CPU has not come to (/proc/sys/net/core/netdev_max_backlog, 1,000 packets).
        done = max(done, due - rate // BURSTS)
        while done < due:
            done += 1
            try:
                # Numbered without gaps, so that the other end knows how many it lacks.
                send(tally.sent.to_bytes(8, "big") * (SIZE // 8))
                tally.sent += 1
            except OSError as error:
                tally.refuse(error)
        if not asker.hear(TICK):
            return


def datagrams(address: str, port: int, source: str) -> Callable[[bytes], object]:
    """A sender of UDP, not connected: each packet has its own lookup, and no ICMP error counts.

    Its source may be an address that is not there yet.
    """
    out = socket.socket(family(address), socket.SOCK_DGRAM)
    out.setblocking(False)
    if source:
        out.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        out.bind((source, 0))
    return lambda message: out.sendto(message, (address, port))


class Stream:
    """A TCP connection that is made anew when it breaks."""

    def __init__(self, address: str, port: int) -> None:
        self._ends = (address, port)
        self._socket: socket.socket | None = None
        self._retry = 0.0

    def send(self, message: bytes) -> int:
        """Send a message as a packet of its own.

        Raises:
            OSError: the connection broke, is not there yet, or takes no more.
        """
        if self._socket is None:
            if time.monotonic() < self._retry:
                raise OSError(errno.ENOTCONN, "waiting")
            self._retry = time.monotonic() + 0.2
            self._socket = socket.socket(family(self._ends[0]), socket.SOCK_STREAM)
            self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._socket.setsockopt(socket.IPPROTO_TCP, TCP_USER_TIMEOUT, BROKEN_AFTER)
            self._socket.setblocking(False)
            self._socket.connect_ex(self._ends)
        try:
            return self._socket.send(message)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._socket.close()
                self._socket = None
            raise


class Taker:
    """The receiving end: what came, and the pauses longer than GAP as (when, how long).

    Of datagrams it knows by their numbers which are lacking: gaps as (first number, how many).
    """

    def __init__(self, source: socket.socket, *, stream: bool) -> None:
        self._source = source
        self._stream = stream
        self._links = {source}
        self._first = self._last = 0.0
        self._bytes = self._next = 0
        self._pauses: list[tuple[float, float]] = []
        self._gaps: list[tuple[int, int]] = []

    def found(self) -> dict[str, object]:
        """What came so far; the datagrams of `gaps` were overtaken by others, or are lost."""
        return {
            "received": self._bytes // SIZE,
            "next": self._next,
            "gaps": self._gaps,
            "first": self._first or float("inf"),
            "last": self._last,
            "pauses": self._pauses,
        }

    def take(self) -> None:
        """Take all that is there; a look every few milliseconds costs less than one a packet."""
        for one in tuple(self._links):
            if self._stream and one is self._source:
                self._accept()
                continue
            try:
                while part := one.recv(1 << 16):
                    self._count(part)
            except BlockingIOError:
                continue
            except OSError:
                pass
            self._links.remove(one)
            one.close()

    def _accept(self) -> None:
        try:
            link = self._source.accept()[0]
        except BlockingIOError:
            return
        link.setblocking(False)
        self._links.add(link)

    def _count(self, part: bytes) -> None:
        now = time.monotonic()
        if self._last and now - self._last > GAP:
            self._pauses.append((self._last, now - self._last))
        self._first = self._first or now
        self._last = now
        self._bytes += len(part)
        if not self._stream:
            self._number(int.from_bytes(part[:8], "big"))

    def _number(self, number: int) -> None:
        if number < self._next:
            self._gaps = [
                (first, end - first)
                for low, count in self._gaps
                for first, end in _without(number, low, low + count)
                if first < end
            ]
            return
        if number > self._next:
            self._gaps.append((self._next, number - self._next))
        self._next = number + 1


def _without(number: int, low: int, high: int) -> tuple[tuple[int, int], ...]:
    """A range that has no such number in it, in parts that may be empty."""
    return ((low, number), (number + 1, high)) if low <= number < high else ((low, high),)


def main() -> None:
    """Be the end that the command line names."""
    role, address, port, rate, seconds, *source = sys.argv[1:]
    kind = socket.SOCK_STREAM if role.startswith("tcp") else socket.SOCK_DGRAM
    if role.endswith("take"):
        listener = socket.socket(family(address), kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, 16 << 20)
        listener.setsockopt(socket.IPPROTO_IP, IP_FREEBIND, 1)
        listener.bind((address, int(port)))
        listener.setblocking(False)
        if kind is socket.SOCK_STREAM:
            listener.listen()
        taker = Taker(listener, stream=kind is socket.SOCK_STREAM)
        asker = Asker(taker.found)
        ready()
        end = time.monotonic() + float(seconds)
        taker.take()
        while time.monotonic() < end and asker.hear(TICK):
            taker.take()
    else:
        tally = Tally()
        send = (
            Stream(address, int(port)).send
            if role == "tcp-send"
            else datagrams(address, int(port), "".join(source))
        )
        asker = Asker(tally.found)
        ready()
        paced(int(rate), float(seconds), tally, send, asker)
    asker.tell()


def ready() -> None:
    """Say so."""
    sys.stdout.write("ready\n")
    sys.stdout.flush()


if __name__ == "__main__":
    main()
