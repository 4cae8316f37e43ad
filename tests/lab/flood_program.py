"""One end of a flood, a program of its own so that neither capture nor test slows it.

Called as `flood_program.py ROLE ADDRESS PORT RATE SECONDS`; ROLE is udp-send, udp-take, tcp-send or
tcp-take. It says "ready", ends after that many seconds or when its standard input ends, and prints
what happened as JSON. Imports are few: each costs tens of milliseconds in the lab's guest.
"""

import errno
import json
import select
import socket
import sys
import time
from collections.abc import Callable

TICK = 0.01
GAP = 0.1
SIZE = 64


def family(address: str) -> socket.AddressFamily:
    """The family of an address."""
    return socket.AF_INET6 if ":" in address else socket.AF_INET


def stopped(wait: float) -> bool:
    """Whether whoever started this has closed its standard input; waits for that."""
    return bool(select.select([sys.stdin], [], [], max(wait, 0))[0])


class Tally:
    """What a sender could hand to the kernel, and what the kernel refused."""

    def __init__(self) -> None:
        self.sent = 0
        self.refused: dict[str, int] = {}

    def refuse(self, error: OSError) -> None:
        """Count an error by its name."""
        name = errno.errorcode.get(error.errno or 0, "?")
        self.refused[name] = self.refused.get(name, 0) + 1


def paced(rate: int, seconds: float, tally: Tally, send: Callable[[bytes], object]) -> None:
    """Send at a rate until the end; what a slow machine could not send in time is made good."""
    began = time.monotonic()
    done = 0
    while (spent := time.monotonic() - began) < seconds:
        due = int(spent * rate)
        while done < due:
            done += 1
            try:
                send(done.to_bytes(8, "big") * (SIZE // 8))
                tally.sent += 1
            except OSError as error:
                tally.refuse(error)
        if stopped(TICK):
            return


def datagrams(address: str, port: int) -> Callable[[bytes], object]:
    """A sender of UDP, not connected: each packet has its own lookup, and no ICMP error counts."""
    out = socket.socket(family(address), socket.SOCK_DGRAM)
    out.setblocking(False)
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
            self._socket.setblocking(False)
            self._socket.connect_ex(self._ends)
        try:
            return self._socket.send(message)
        except OSError as error:
            if error.errno != errno.EAGAIN:
                self._socket.close()
                self._socket = None
            raise


def take(source: socket.socket, seconds: float, *, stream: bool) -> dict[str, object]:
    """Receive until the end; counts, and pauses longer than GAP as (when, how long)."""
    links = {source}
    got, last, pauses = 0, 0.0, []
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        ready, _, _ = select.select([*links, sys.stdin], [], [], 0.5)
        if sys.stdin in ready:
            break
        for one in links.intersection(ready):
            if stream and one is source:
                links.add(source.accept()[0])
                continue
            try:
                part = one.recv(1 << 16)
            except OSError:
                part = b""
            now = time.monotonic()
            if not part:
                links.remove(one)
                one.close()
                continue
            if last and now - last > GAP:
                pauses.append((last, now - last))
            last = now
            got += len(part)
    return {"received": got // SIZE, "last": last, "pauses": pauses}


def main() -> None:
    """Be the end that the command line names."""
    role, address, port, rate, seconds = sys.argv[1:]
    kind = socket.SOCK_STREAM if role.startswith("tcp") else socket.SOCK_DGRAM
    tally = Tally()
    if role.endswith("take"):
        source = socket.socket(family(address), kind)
        source.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        source.setsockopt(socket.SOL_SOCKET, 33, 16 << 20)  # SO_RCVBUFFORCE
        source.bind((address, int(port)))
        if kind is socket.SOCK_STREAM:
            source.listen()
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        found = take(source, float(seconds), stream=kind is socket.SOCK_STREAM)
    else:
        send = (
            Stream(address, int(port)).send if role == "tcp-send" else datagrams(address, int(port))
        )
        sys.stdout.write("ready\n")
        sys.stdout.flush()
        began = time.monotonic()
        paced(int(rate), float(seconds), tally, send)
        found = {"sent": tally.sent, "refused": tally.refused}
        found |= {"began": began, "ended": time.monotonic()}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    main()
