"""Forks agents in a slow lab: its guest takes 15 s for their imports, a real machine 0.7 s.

The imports are done once, by a program that is each agent's parent. The boot test, and all that
runs on the machine's own kernel, start the agent as its users do.
"""

import atexit
import contextlib
import functools
import gc
import json
import os
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Iterator, Sequence
from importlib import import_module
from pathlib import Path
from typing import Any, Protocol

from tests.lab.namespaces import inside

ROOT = Path(__file__).parents[2]

EVERY = 0.05
"""Seconds between two looks whether an agent has ended."""


class Running(Protocol):
    """What tests need of an agent's process."""

    @property
    def pid(self) -> int:
        """Its pid."""

    def poll(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code."""

    def send_signal(self, sig: int) -> None:
        """Send it a signal."""

    def kill(self) -> None:
        """Kill it."""


_tree = ROOT


class Parent:
    """The program that forks agents, with the imports of a source tree done."""

    def __init__(self, source: Path) -> None:
        self._one_at_a_time = threading.Lock()
        self._program = subprocess.Popen(
            [sys.executable, "-m", "tests.charon.agents"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            # Where it is started comes first of all that Python finds.
            cwd=source,
            env={**os.environ, "PYTHONPATH": str(ROOT)},
        )
        # At the end of its input it ends.
        atexit.register(self._program.communicate)

    def asked(self, **request: Any) -> dict[str, Any]:
        """Its answer to a request."""
        assert self._program.stdin is not None
        assert self._program.stdout is not None
        with self._one_at_a_time:
            self._program.stdin.write(json.dumps(request) + "\n")
            self._program.stdin.flush()
            answer: dict[str, Any] = json.loads(self._program.stdout.readline())
        return answer


parent = functools.cache(Parent)
"""The one of a tree."""


def prepare() -> None:
    """Begin with the imports, for the forks that come."""
    parent(_tree)


@contextlib.contextmanager
def of(source: Path) -> Iterator[None]:
    """Agents that start meanwhile run the package `ipsec_agent` of another directory."""
    global _tree  # noqa: PLW0603 - one for all nodes, as the environment of a program is
    before, _tree = _tree, source
    try:
        yield
    finally:
        _tree = before


def tree() -> Path:
    """Where a program that runs the agent itself is to be started."""
    return _tree


def fork(netns: str, arguments: Sequence[str], log: Path) -> "Forked":
    """Fork `ipsec-agent ARGUMENTS` into a namespace; it writes to the end of a log."""
    of_tree = parent(_tree)
    return Forked(of_tree, of_tree.asked(netns=netns, arguments=arguments, log=str(log))["pid"])


class Forked:
    """An agent whose parent is the program below.

    Attributes:
        pid: its pid.
    """

    def __init__(self, parent: Parent, pid: int) -> None:
        self._parent = parent
        self.pid = pid
        self._code: int | None = None

    def poll(self) -> int | None:
        """Its exit code, below 0 for a signal; None while it runs."""
        if self._code is None:
            self._code = self._parent.asked(pid=self.pid)["code"]
        return self._code

    def wait(self, timeout: float | None = None) -> int:
        """Wait for its exit code.

        Raises:
            subprocess.TimeoutExpired: it did not end in time.
        """
        end = time.monotonic() + (timeout or 0)
        while (code := self.poll()) is None:
            if timeout is not None and time.monotonic() > end:
                raise subprocess.TimeoutExpired("ipsec-agent", timeout)
            time.sleep(EVERY)
        return code

    def send_signal(self, sig: int) -> None:
        """Send it a signal, if it still runs."""
        if self.poll() is None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Kill it."""
        self.send_signal(signal.SIGKILL)


def main() -> None:
    """Be the parent: a line starts an agent, or asks for the exit code of one."""
    import_module("ipsec_agent.verbs.run")
    gc.freeze()
    for line in sys.stdin:
        request = json.loads(line)
        if "pid" in request:
            pid, status = os.waitpid(request["pid"], os.WNOHANG)
            answer = {"code": os.waitstatus_to_exitcode(status) if pid else None}
        else:
            pid = os.fork()
            if not pid:
                _be(**request)
            answer = {"pid": pid}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


def _be(netns: str, arguments: Sequence[str], log: str) -> None:
    """Be an agent, and end with it."""
    code: Any = 1
    try:
        for number, path, flags in (
            (0, os.devnull, os.O_RDONLY),
            (1, log, os.O_WRONLY | os.O_APPEND | os.O_CREAT),
        ):
            opened = os.open(path, flags, 0o644)
            os.dup2(opened, number)
            os.close(opened)
        os.dup2(1, 2)
        with inside(netns):
            code = import_module("ipsec_agent.cli").main(arguments)
    except SystemExit as error:
        code = error.code
    except BaseException:  # noqa: BLE001 - what Python itself would do
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    main()
