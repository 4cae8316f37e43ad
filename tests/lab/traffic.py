"""Traffic between VMs: what was tried, what arrived, and when."""

import contextlib
import json
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.charon.nodes import DEADLINE, SCALE, Node
from tests.lab.namespaces import inside

CHUNK = bytes(65536)
PAUSE = 0.1
"""Seconds without an arrival that count as a pause."""

FLOOD = Path(__file__).with_name("flood_program.py")


@dataclass(frozen=True, slots=True)
class Flow:
    """What a sender tried, for the judge.

    Attributes:
        sent: packets, or writes, that the kernel took.
        arrived: how many of them came to the other end; of an echo, how many came back.
        began, ended: by time.monotonic.
        refused: what the kernel refused, by the name of the error.
        bytes: the payload.
        pauses: (when, seconds) in which nothing arrived, for those of more than 0.1 s.
        lost: datagrams that were overtaken by later ones and never came.
    """

    sent: int
    arrived: int
    began: float
    ended: float
    refused: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    pauses: tuple[tuple[float, float], ...] = ()
    lost: int = 0

    @property
    def attempts(self) -> int:
        """How often it was tried."""
        return self.sent + sum(self.refused.values())

    @property
    def speed(self) -> float:
        """MB per second."""
        return self.bytes / (self.ended - self.began) / 1e6

    @property
    def longest_pause(self) -> float:
        """Seconds."""
        return max((seconds for _, seconds in self.pauses), default=0.0)


def ping(netns: str, address: str, count: int, interval: float = 0.05) -> Flow:
    """Send echo requests from a namespace, and count the answers."""
    began = time.monotonic()
    # A lone echo that asks for an SA is lost by design; more of them wait for their answers.
    patience = "1" if count == 1 else str(1 + int(SCALE / 2))
    with inside(netns):
        program = subprocess.Popen(
            ["ping", "-n", "-q", "-i", f"{interval}", "-c", f"{count}", "-W", patience, address],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    with program:
        try:
            said, _ = program.communicate(timeout=DEADLINE + count)
        except subprocess.TimeoutExpired:
            program.kill()
            raise
    for line in said.splitlines():
        if "packets transmitted" in line:
            sent, arrived = (int(part.split()[0]) for part in line.split(",")[:2])
            return Flow(sent, arrived, began, time.monotonic(), bytes=56 * sent)
    raise AssertionError(said)


def first_answer(node: Node, address: str) -> float:
    """Ping until the first answer; seconds that it took.

    Raises:
        AssertionError: none came in time.
    """
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE:
        if ping(node.name, address, 1).arrived:
            return time.monotonic() - began
    raise AssertionError(f"{node.name} gets no answer from {address}: {node.log[-2000:]}")


def transfer(sender: str, receiver: str, address: str, size: int, *, listen: str = "") -> Flow:
    """Send bytes over TCP and wait until the other end has all of them.

    Args:
        sender: the namespace that connects.
        receiver: the namespace that listens.
        address: where the sender connects to.
        listen: where the receiver listens, if that is another address (it is translated).
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    with inside(receiver):
        listener = socket.create_server((listen or address, 9000), family=family)
    listener.settimeout(DEADLINE)
    received = 0

    def take() -> None:
        nonlocal received
        with listener, listener.accept()[0] as channel:
            channel.settimeout(DEADLINE)
            while part := channel.recv(1 << 20):
                received += len(part)
            channel.sendall(b"done")

    taker = threading.Thread(target=take, daemon=True)
    taker.start()
    began = time.monotonic()
    with inside(sender):
        channel = socket.create_connection((address, 9000), DEADLINE)
    sent = 0
    with channel:
        while sent < size:
            sent += channel.send(CHUNK[: size - sent])
        channel.shutdown(socket.SHUT_WR)
        assert channel.recv(4) == b"done"
    taker.join(DEADLINE)
    assert received == size
    # A packet holds 1,500 bytes at the most.
    packets = size // 1500
    return Flow(packets, packets, began, time.monotonic(), bytes=size)


@dataclass(frozen=True, slots=True)
class Reading:
    """What both ends of a flood say while it runs, one right after the other."""

    out: dict[str, Any]
    came: dict[str, Any]


class Flood:
    """A flood from one namespace to another, at a steady rate, by two programs.

    Attributes:
        flow: what was tried and what arrived; known after `end` or `wait`.
    """

    flow: Flow

    def __init__(
        self, sender: subprocess.Popen[str], taker: subprocess.Popen[str], seconds: float
    ) -> None:
        self._sender = sender
        self._taker = taker
        self._seconds = seconds

    def read(self) -> Reading:
        """What was tried and what arrived up to now; the flood goes on."""
        return Reading(_asked(self._sender), _asked(self._taker))

    def hold(self) -> None:
        """Send nothing until `go_on`; meanwhile it cannot be read."""
        self._sender.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Send again."""
        self._sender.send_signal(signal.SIGCONT)

    def arrived_last(self) -> float:
        """When something arrived for the last time, by time.monotonic."""
        return float(_asked(self._taker)["last"])

    def since(self, start: Reading) -> Flow:
        """What happened between a reading and now."""
        return between(start, self.read())

    def end(self) -> Flow:
        """End it now, and wait for what is under way."""
        out = _ended(self._sender)
        time.sleep(0.2 * SCALE)
        came = _ended(self._taker)
        self.flow = Flow(
            sent=out["sent"],
            arrived=came["received"],
            began=out["began"],
            ended=out["at"],
            refused=out["refused"],
            pauses=tuple((when, seconds) for when, seconds in came["pauses"]),
            lost=came["lacking"],
        )
        return self.flow

    def wait(self) -> Flow:
        """Wait until its seconds are over, and for what is under way."""
        self._sender.wait(self._seconds + DEADLINE)
        return self.end()


def between(start: Reading, end: Reading) -> Flow:
    """What happened from one reading of a flood to a later one.

    A pause counts with the part that lies between them, and one that goes on counts, too.
    """
    began, ended = start.came["at"], end.came["at"]
    last = end.came["last"] or began
    pauses = [*end.came["pauses"], (last, ended - last)]
    cut = [
        (max(when, began), min(when + seconds, ended) - max(when, began))
        for when, seconds in pauses
    ]
    refused = {
        name: count - start.out["refused"].get(name, 0)
        for name, count in end.out["refused"].items()
    }
    return Flow(
        sent=end.out["sent"] - start.out["sent"],
        arrived=end.came["received"] - start.came["received"],
        began=start.out["at"],
        ended=end.out["at"],
        refused={name: count for name, count in refused.items() if count},
        pauses=tuple((when, seconds) for when, seconds in cut if seconds > PAUSE),
        lost=end.came["lacking"] - start.came["lacking"],
    )


@contextlib.contextmanager
def flood(
    sender: str,
    receiver: str,
    address: str,
    *,
    protocol: str = "udp",
    port: int = 9000,
    rate: int = 1000,
    seconds: float = 60,
    listen: str = "",
    source: str = "",
) -> Iterator[Flood]:
    """A flood of 64-byte messages that ends with the context, or after some seconds.

    Before the context ends, `end` or `wait` tells what came of it.

    Args:
        sender, receiver: the namespaces.
        address: where the sender sends to.
        protocol: udp, or tcp (one message, one packet; a broken connection is made anew).
        rate: messages a second.
        listen: where the receiver listens, if that is another address (it is translated).
        source: from where UDP is sent, which may be an address that the sender has not got yet.
    """
    tail = (str(port), str(rate), str(seconds))
    taker = _start(receiver, f"{protocol}-take", listen or address, *tail[:2], str(seconds + 60))
    try:
        out = _start(sender, f"{protocol}-send", address, *tail, *((source,) if source else ()))
        try:
            yield Flood(out, taker, seconds)
        finally:
            _kill(out)
    finally:
        _kill(taker)


def _start(netns: str, *arguments: str) -> subprocess.Popen[str]:
    with inside(netns):
        program = subprocess.Popen(
            [sys.executable, "-I", "-S", str(FLOOD), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    assert program.stdout is not None
    assert program.stdout.readline() == "ready\n"
    return program


def _asked(program: subprocess.Popen[str]) -> dict[str, Any]:
    assert program.stdin is not None
    assert program.stdout is not None
    program.stdin.write("\n")
    program.stdin.flush()
    assert select.select([program.stdout], [], [], DEADLINE)[0], "a flood does not answer"
    found: dict[str, Any] = json.loads(program.stdout.readline())
    return found


def _ended(program: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = program.communicate(timeout=DEADLINE)
    found: dict[str, Any] = json.loads(said.splitlines()[-1])
    return found


def _kill(program: subprocess.Popen[str]) -> None:
    program.kill()
    program.wait(20)
    for pipe in (program.stdin, program.stdout):
        if pipe is not None and not pipe.closed:
            with contextlib.suppress(OSError):
                pipe.close()
