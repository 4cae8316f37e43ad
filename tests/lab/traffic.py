"""Traffic between VMs, by sockets made inside their namespaces."""

import socket
import subprocess
import threading
import time

from tests.charon.nodes import DEADLINE, SCALE, Node
from tests.lab.wire import inside

CHUNK = bytes(65536)


def ping(node: Node, address: str, count: int, interval: float = 0.05) -> int:
    """Send echo requests; returns how many were answered."""
    # A lone echo that asks for an SA is lost by design; more of them wait for their answers.
    patience = 1 if count == 1 else 1 + int(SCALE / 2)
    options = ("-i", str(interval), "-c", str(count), "-W", str(patience))
    done = subprocess.run(
        node.command("ping", "-n", "-q", *options, address),
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE + count,
    )
    for line in done.stdout.splitlines():
        if "packets transmitted" in line:
            return int(line.split(",")[1].split()[0])
    raise AssertionError(done.stdout + done.stderr)


def first_answer(node: Node, address: str) -> float:
    """Ping until the first answer; seconds that it took.

    Raises:
        AssertionError: none came in time.
    """
    began = time.monotonic()
    while time.monotonic() - began < DEADLINE:
        if ping(node, address, 1):
            return time.monotonic() - began
    raise AssertionError(f"{node.name} gets no answer from {address}: {node.log[-2000:]}")


def transfer(sender: str, receiver: str, address: str, size: int, *, listen: str = "") -> float:
    """Send bytes over TCP and wait until the other end has all of them; MB per second.

    Args:
        sender: the namespace that connects.
        receiver: the namespace that listens.
        address: where the sender connects to.
        listen: where the receiver listens, if that is another address (it is translated).
    """
    with inside(receiver):
        listener = socket.create_server((listen or address, 9000))
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
    with channel:
        for _ in range(size // len(CHUNK)):
            channel.sendall(CHUNK)
        channel.shutdown(socket.SHUT_WR)
        assert channel.recv(4) == b"done"
    taker.join(DEADLINE)
    assert received == size // len(CHUNK) * len(CHUNK)
    return received / (time.monotonic() - began) / 1e6
