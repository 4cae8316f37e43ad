"""Floods between VMs: programs that send at a steady rate, and what came of it."""

import contextlib
import functools
import json
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.charon.nodes import DEADLINE, SCALE
from tests.lab.namespaces import inside
from tests.lab.traffic import Flow

PAUSE = 0.1
"""Seconds without an arrival that count as a pause."""

PROGRAM = Path(__file__).with_name("flood_program.py")


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
        self, sender: subprocess.Popen[str], takers: Sequence[subprocess.Popen[str]], seconds: float
    ) -> None:
        self._sender = sender
        self._takers = takers
        self._seconds = seconds

    def read(self) -> Reading:
        """What was tried and what arrived up to now; the flood goes on."""
        return Reading(_asked(self._sender), together([_asked(one) for one in self._takers]))

    def hold(self) -> None:
        """Send nothing until `go_on`; meanwhile it cannot be read."""
        self._sender.send_signal(signal.SIGSTOP)

    def go_on(self) -> None:
        """Send again."""
        self._sender.send_signal(signal.SIGCONT)

    def arrived_last(self) -> float:
        """When something arrived for the last time, by time.monotonic."""
        return max(float(_asked(one)["last"]) for one in self._takers)

    def since(self, start: Reading) -> Flow:
        """What happened between a reading and now."""
        return between(start, self.read())

    def end(self) -> Flow:
        """End it now, and wait for what is under way."""
        out = _ended(self._sender)
        time.sleep(0.2 * SCALE)
        came = together([_ended(one) for one in self._takers])
        self.flow = Flow(
            sent=out["sent"],
            arrived=came["received"],
            began=out["began"],
            ended=out["at"],
            refused=out["refused"],
            pauses=tuple((when, seconds) for when, seconds in came["pauses"]),
            lost=_lacking(came),
        )
        return self.flow

    def wait(self) -> Flow:
        """Wait until its seconds are over, and for what is under way."""
        self._sender.wait(self._seconds + DEADLINE)
        return self.end()


def together(cames: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """What several receivers say of one flood, as if they were one."""
    if len(cames) == 1:
        return cames[0]
    received = sum(one["received"] for one in cames)
    last = max(one["last"] for one in cames)
    silent = [
        [(0.0, one["first"]), *one["pauses"], (one["last"], one["at"] - one["last"])]
        for one in cames
    ]
    end = max(one["next"] for one in cames)
    gaps = [[*one["gaps"], (one["next"], end - one["next"])] for one in cames]
    return {
        "received": received,
        "next": end,
        "gaps": functools.reduce(_common, gaps),
        "last": last,
        "at": max(one["at"] for one in cames),
        "pauses": [pause for pause in functools.reduce(_common, silent) if pause[0] < last],
    }


def _common(
    some: Sequence[tuple[float, float]], others: Sequence[tuple[float, float]]
) -> list[tuple[float, float]]:
    """The parts of pauses, or of gaps, that lie in those of the others, too."""
    return [
        (max(one, other), min(one + for_one, other + for_other) - max(one, other))
        for one, for_one in some
        for other, for_other in others
        if min(one + for_one, other + for_other) > max(one, other)
    ]


def _lacking(came: dict[str, Any], since: int = 0) -> int:
    """How many datagrams are lacking, of those whose number is not lower."""
    return sum(max(0, first + count - max(first, since)) for first, count in came["gaps"])


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
        lost=_lacking(end.came, start.came["next"]),
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
    also: Sequence[str] = (),
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
        also: further namespaces to which the address may move.
        source: from where UDP is sent, which may be an address that the sender has not got yet.
    """
    tail = (str(port), str(rate), str(seconds))
    taking = (f"{protocol}-take", listen or address, *tail[:2], str(seconds + 60))
    with contextlib.ExitStack() as stack:
        takers = [stack.enter_context(_program(netns, *taking)) for netns in (receiver, *also)]
        sending = (f"{protocol}-send", address, *tail, *((source,) if source else ()))
        yield Flood(stack.enter_context(_program(sender, *sending)), takers, seconds)


@contextlib.contextmanager
def _program(netns: str, *arguments: str) -> Iterator[subprocess.Popen[str]]:
    with inside(netns):
        program = subprocess.Popen(
            [sys.executable, "-I", "-S", str(PROGRAM), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
    try:
        assert program.stdout is not None
        assert program.stdout.readline() == "ready\n"
        yield program
    finally:
        _kill(program)


_one_at_a_time = threading.Lock()


def _asked(program: subprocess.Popen[str]) -> dict[str, Any]:
    assert program.stdin is not None
    assert program.stdout is not None
    with _one_at_a_time:
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
