"""Who follows a running agent: systemd by its status line, an operator by `status --watch`."""

import contextlib
import json
import signal
import socket
import subprocess
import time
from collections.abc import Iterator

import pytest

from tests.charon.nodes import AGENT, DEADLINE, Node
from tests.charon.shared_manifest import configure

pytestmark = pytest.mark.charon


@contextlib.contextmanager
def started(node: Node) -> Iterator[socket.socket]:
    """The socket on which systemd is told of an agent that it has started."""
    path = node.directory / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.settimeout(DEADLINE)
        manager.bind(str(path))
        node.start(around=("env", f"NOTIFY_SOCKET={path}"))
        yield manager


def told(manager: socket.socket, what: str, also: str = "") -> list[str]:
    """The assignments of the next datagram that has this one, and these words.

    Raises:
        AssertionError: none came in time.
    """
    end = time.monotonic() + DEADLINE
    while time.monotonic() < end:
        said = manager.recv(4096).decode()
        assignments = said.split("\n")
        if also in said and any(one.startswith(what) for one in assignments):
            return assignments
    raise AssertionError(f"systemd is not told {what} {also}")


@pytest.fixture
def exempt(node: Node) -> Node:
    """A VM that speaks clear, and so is healthy on a kernel without ESP, too."""
    configure(node, no_ipsec=["10.9.0.1/32", "10.9.0.3/32"])
    return node


def test_systemd_is_told(exempt: Node) -> None:
    """READY only once all is enforced; the line says how it is, also when that changes."""
    node = exempt
    with started(node) as manager:
        told(manager, "READY=1")
        assert len(node.policies()) == 6
        assert node.settled()["healthy"]
        good = told(manager, "STATUS=")
        node.ask("guard down")
        (bad, *_) = told(manager, "STATUS=", "lowered")
        node.end_agent()
        told(manager, "STOPPING=1")

    assert "WATCHDOG=1" in good
    assert good[0].startswith("STATUS=running")
    assert bad.startswith("STATUS=degraded")


def test_watch(exempt: Node) -> None:
    """A status each second, until the operator has seen enough; the agent's end ends nothing."""
    node = exempt
    node.up()
    words = ("status", "--watch", "--json", "--socket", str(node.run_dir / "control.sock"))
    with subprocess.Popen(
        [*AGENT, *words], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    ) as program:
        assert program.stdout is not None
        shown = [json.loads(program.stdout.readline())]
        began = time.monotonic()
        shown.append(json.loads(program.stdout.readline()))
        took = time.monotonic() - began
        node.end_agent()
        while (last := json.loads(program.stdout.readline()))["state"] != "stopped":
            shown.append(last)
        program.send_signal(signal.SIGINT)
        _, said = program.communicate(timeout=DEADLINE)

    assert all(one["state"] == "running" and one["healthy"] for one in shown)
    assert 0.3 < took < 5
    assert program.returncode == 130
    assert "Traceback" not in said
