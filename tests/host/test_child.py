"""A child process works, and its answer is what this process would have had."""

import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NoReturn

import pytest

from ipsec_agent.errors import ConfigError
from ipsec_agent.host.child import Child
from ipsec_agent.host.files import only_agent
from tests.charon.nodes import until
from tests.lab.truth import alive

OWN = os.getpid()
LARGE = 1 << 20
"""Bytes, more than a pipe holds."""


def test_its_answer() -> None:
    """It is another process that works, and it is gone afterwards."""
    pid, answer = Child(lambda: (os.getpid(), bytes(LARGE))).result()

    assert (pid != OWN, answer) == (True, bytes(LARGE))
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


def test_it_works_meanwhile(tmp_path: Path) -> None:
    """Not only once it is asked."""
    done = tmp_path / "done"
    child = Child(done.touch)
    until(done.exists, "it has worked")
    child.result()


def test_a_refusal_is_raised_here() -> None:
    """With all that it says."""

    def refuse() -> NoReturn:
        raise ConfigError("refused", complaints=["f:1: wrong"], hint="nothing was changed")

    with pytest.raises(ConfigError, match="refused") as raised:
        Child(refuse).result()

    assert raised.value.complaints == ("f:1: wrong",)
    assert raised.value.hint == "nothing was changed"


def die() -> int:
    """Only in a child."""
    if os.getpid() != OWN:
        os.kill(os.getpid(), signal.SIGKILL)
    return os.getpid()


def fail() -> int:
    """Likewise, as nobody has foreseen."""
    return os.getpid() if os.getpid() == OWN else 1 // 0


def hang() -> int:
    """Likewise, for longer than the deadline."""
    if os.getpid() != OWN:
        time.sleep(60)
    return os.getpid()


class Bomb:
    """What ends a child while it tells of it."""

    def __reduce__(self) -> str:
        """Be told, as pickle asks for it."""
        die()
        return "Bomb"


def die_amid() -> int:
    """Only in a child, after a part of the answer."""
    return OWN if os.getpid() == OWN else (bytes(LARGE), Bomb())  # type: ignore[return-value]


@pytest.mark.parametrize("work", [die, fail, hang, die_amid])
def test_without_a_child_the_work_is_done_here(work: object) -> None:
    """Killed before or amid its answer, failed, or late."""
    assert callable(work)
    assert Child(work, deadline=1.0).result() == OWN


def test_no_process_can_be_made(monkeypatch: pytest.MonkeyPatch) -> None:
    """The work is done here, too."""

    def refuse() -> NoReturn:
        raise BlockingIOError

    monkeypatch.setattr(os, "fork", refuse)

    assert Child(os.getpid).result() == OWN


def test_the_daemon_does_without_what_reads_a_config() -> None:
    """Of its 45 MB the parser, yaml and cryptography were 11."""
    program = "import sys, ipsec_agent.agent, ipsec_agent.verbs.run; print(*sys.modules)"
    done = subprocess.run(
        [sys.executable, "-c", program], capture_output=True, check=True, text=True
    )
    found = {name.partition(".")[0] for name in done.stdout.split()}

    assert "ipsec_agent" in found
    assert not found & {"cryptography", "yaml"}


def test_whoever_started_this_process_ignores_dead_children() -> None:
    """`trap '' CHLD` outlives exec; nobody can tell then how the child ended."""
    before = signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    try:
        assert Child(os.getpid).result() == OWN
    finally:
        signal.signal(signal.SIGCHLD, before)


def test_it_may_be_made_beside_other_threads() -> None:
    """By any of them; another one that holds what it needs not does not matter."""
    held = threading.Lock()
    with held, ThreadPoolExecutor() as threads:
        waiting = threads.submit(held.acquire)
        pid = threads.submit(lambda: Child(os.getpid).result()).result(10)
        held.release()
        assert waiting.result(10)

    assert pid != OWN


def test_its_signals_are_its_own() -> None:
    """asyncio hears of signals by a socket, which the child has, too."""
    ours, theirs = socket.socketpair()
    for end in (ours, theirs):
        end.setblocking(False)
    numbers = (signal.SIGUSR1, signal.SIGTERM)
    before = [signal.signal(number, lambda *_: None) for number in numbers]
    descriptor = signal.set_wakeup_fd(theirs.fileno())

    def work() -> int:
        signal.raise_signal(signal.SIGUSR1)
        if os.getpid() != OWN:
            signal.raise_signal(signal.SIGTERM)
        return os.getpid()

    try:
        assert Child(work).result() == OWN, "SIGTERM did not end the child"
        heard = ours.recv(64)
    finally:
        signal.set_wakeup_fd(descriptor)
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)
        for end in (ours, theirs):
            end.close()

    assert heard == bytes([signal.SIGUSR1]), "of this process alone"


ORPHAN = """
import os, signal, time
from ipsec_agent.host.child import Child
def work():
    print(os.getpid(), flush=True)
    time.sleep(60)
Child(work, deadline=1)
signal.pause()
"""


def test_one_that_hangs_does_not_outlive_a_killed_parent_for_long() -> None:
    """Nobody would end it."""
    with subprocess.Popen(
        [sys.executable, "-c", ORPHAN], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        parent.kill()
    until(lambda: not alive(child), "it has ended", 20)


KILLED = """
import os, signal, sys, time
from pathlib import Path
from ipsec_agent.host.child import Child
from ipsec_agent.host.files import only_agent
def work():
    print(os.getpid(), flush=True)
    time.sleep(60)
with only_agent(Path(sys.argv[1])):
    Child(work)
    signal.pause()
"""


def test_it_holds_no_lock_of_a_parent_that_is_killed(tmp_path: Path) -> None:
    """The next agent starts, though a child of the one before still works."""
    lock = tmp_path / "lock"
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(lock)], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout
        child = int(parent.stdout.readline())
        try:
            parent.kill()
            parent.wait(10)
            with only_agent(lock):
                os.kill(child, 0)
        finally:
            os.kill(child, signal.SIGKILL)
