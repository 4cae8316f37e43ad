"""Traffic between VMs: what was tried, what arrived, and when."""

import contextlib
import json
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
    """

    sent: int
    arrived: int
    began: float
    ended: float
    refused: dict[str, int] = field(default_factory=dict)
    bytes: int = 0
    pauses: tuple[tuple[float, float], ...] = ()

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

    def end(self) -> Flow:
        """End it now, and wait for what is under way."""
        return self._collect(_ended(self._sender))

    def wait(self) -> Flow:
        """Wait until its seconds are over, and for what is under way."""
        self._sender.wait(self._seconds + DEADLINE)
        return self.end()

    def _collect(self, out: dict[str, Any]) -> Flow:
        time.sleep(0.2 * SCALE)
        came = _ended(self._taker)
        self.flow = Flow(
            sent=out["sent"],
            arrived=came["received"],
            began=out["began"],
            ended=out["ended"],
            refused=out["refused"],
            pauses=tuple((when, seconds) for when, seconds in came["pauses"]),
        )
        return self.flow


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
) -> Iterator[Flood]:
    """A flood of 64-byte messages that ends with the context, or after some seconds.

    Before the context ends, `end` or `wait` tells what came of it.

    Args:
        sender, receiver: the namespaces.
        address: where the sender sends to.
        protocol: udp, or tcp (one message, one packet; a broken connection is made anew).
        rate: messages a second.
        listen: where the receiver listens, if that is another address (it is translated).
    """
    tail = (str(port), str(rate), str(seconds))
    taker = _start(receiver, f"{protocol}-take", listen or address, *tail[:2], str(seconds + 60))
    try:
        source = _start(sender, f"{protocol}-send", address, *tail)
        try:
            yield Flood(source, taker, seconds)
        finally:
            source.kill()
            source.wait(20)
    finally:
        taker.kill()
        taker.wait(20)


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


def _ended(program: subprocess.Popen[str]) -> dict[str, Any]:
    said, _ = program.communicate(timeout=DEADLINE)
    found: dict[str, Any] = json.loads(said)
    return found
