"""A fleet that gets IPsec, and loses it, VM by VM, under an HTTP load."""

import contextlib
import json
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from tests.charon import agents
from tests.charon.nodes import AGENT, PYTHON, SCALE, Node, complaints, ip, until
from tests.lab.deployment import configure
from tests.lab.namespaces import inside

PROGRAM = Path(__file__).with_name("http_program.py")
PATIENCE = 10 * SCALE
MOST_WAIT = 30 * SCALE


def addresses_of(nodes: Sequence[Node]) -> tuple[str, ...]:
    """Those that `network` gives, in its order."""
    return tuple(f"10.9.0.{number}" for number in range(1, len(nodes) + 1))


@contextlib.contextmanager
def load(
    nodes: Sequence[Node], every: float = 0.2 if SCALE == 1 else 2.0
) -> Iterator[list[subprocess.Popen[str]]]:
    """Every VM asks each other one.

    Args:
        every: seconds between two requests to a peer.
    """
    addresses = addresses_of(nodes)
    with contextlib.ExitStack() as stack:
        jobs = []
        for node, own in zip(nodes, addresses, strict=True):
            peers = [peer for peer in addresses if peer != own]
            with inside(node.name):
                job = stack.enter_context(
                    subprocess.Popen(
                        [PYTHON, str(PROGRAM), own, str(PATIENCE), str(every), *peers],
                        stdin=subprocess.PIPE,
                        stdout=subprocess.PIPE,
                        text=True,
                    )
                )
            stack.callback(job.kill)
            jobs.append(job)
        for job in jobs:
            assert job.stdout is not None
            assert job.stdout.readline() == "ready\n"
        yield jobs


def came_of(jobs: Sequence[subprocess.Popen[str]]) -> list[dict[str, Any]]:
    """What came of all requests."""
    for job in jobs:
        assert job.stdin is not None
        job.stdin.write("enough\n")
        job.stdin.flush()
    # All of them serve until none asks any more.
    return [json.loads(job.stdout.readline()) for job in jobs if job.stdout is not None]


def take(node: Node, *, optional: bool) -> None:
    """Have a VM take another config."""
    configure([node], [], extra={"optional": True} if optional else {})
    run(node, "reload", "--socket", str(node.run_dir / "control.sock"))


def optional_now(node: Node) -> bool:
    """Whether a VM is in optional mode, with no other complaint."""
    status = node.status()
    loose = "level use" in ip("xfrm", "policy", netns=node.name)
    return loose and "optional-on" in complaints(status)


def run(node: Node, *words: str) -> None:
    """Run a verb on a VM."""
    if SCALE > 1:
        log = node.directory / "verbs.log"
        assert agents.fork(node.name, words, log).wait(MOST_WAIT) == 0, log.read_text()
        return
    command = node.command(*AGENT, *words)
    subprocess.run(command, check=True, capture_output=True, timeout=MOST_WAIT)


def optional_soon(node: Node) -> None:
    """Wait until a VM is in optional mode."""
    until(lambda: optional_now(node), lambda: f"optional: {node.log[-2000:]}", MOST_WAIT)
