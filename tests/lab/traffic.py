"""Traffic between VMs: what was tried, what arrived, and when."""

import socket
import subprocess
import threading
import time
from dataclasses import dataclass, field

from tests.charon.nodes import DEADLINE, SCALE, Node
from tests.lab.namespaces import inside

CHUNK = bytes(65536)


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
