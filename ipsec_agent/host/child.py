"""A child process that works something out, so that what it takes for that is not kept here.

A fork of this process: it works with the same code, whatever is installed meanwhile. Other threads
are not in it, and what one of them holds at that moment stays locked there; so the work must have
little to do with theirs, and where it hangs all the same it is done here after the deadline. The
answer comes through a pipe, so that nothing of it touches a disk.
"""

import contextlib
import gc
import io
import os
import pickle
import select
import signal
import time
import warnings
from collections.abc import Callable
from typing import Generic, NoReturn, TypeVar

from ipsec_agent.errors import AgentError

DEADLINE = 20.0
"""Seconds that the work may take from when its result is asked for."""

PART = 1 << 16
"""Bytes that a pipe holds."""

STREAMS = 3
"""Descriptors below are standard input, output and error."""

T = TypeVar("T")


class Child(Generic[T]):
    """Work that has begun in a process of its own.

    Args:
        work: what it does; its result must be one that pickle can take. Done here where the child
            cannot be made, is killed, or fails as nobody has foreseen.
        deadline: seconds.
    """

    def __init__(self, work: Callable[[], T], *, deadline: float = DEADLINE) -> None:
        self._work = work
        self._deadline = deadline
        self._pid, self._answer = 0, -1
        try:
            self._answer, writing = os.pipe()
        except OSError:
            return
        try:
            with warnings.catch_warnings():
                # Of the other threads, see above.
                warnings.simplefilter("ignore", DeprecationWarning)
                self._pid = os.fork()
            if not self._pid:
                _work_and_end(work, writing, 2 * deadline)
        except OSError:
            self._pid = 0
        finally:
            os.close(writing)

    def result(self) -> T:
        """What the work has returned; to be asked for once.

        Raises:
            AgentError: the work raised it.
        """
        told = self._told()
        if not told:
            return self._work()
        # Written by a fork of this process, which nobody else could write to.
        outcome: T | AgentError = pickle.loads(told)  # noqa: S301
        if isinstance(outcome, AgentError):
            raise outcome
        return outcome

    def _told(self) -> bytes:
        """The whole answer, b"" where there is none."""
        if self._answer < 0:
            return b""
        with os.fdopen(self._answer, "rb", 0) as pipe:
            if not self._pid:
                return b""
            told = _until(pipe, time.monotonic() + self._deadline)
        if told is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self._pid, signal.SIGKILL)
        try:
            _, status = os.waitpid(self._pid, 0)
        except ChildProcessError:
            # Whoever started this process has it ignore SIGCHLD, so nobody tells how it ended.
            return b""
        return told if told and status == 0 else b""


def _until(pipe: io.RawIOBase, ends: float) -> bytes | None:
    """All that comes through a pipe, None where that is not over in time."""
    told = b""
    while select.select((pipe,), (), (), max(0.0, ends - time.monotonic()))[0]:
        part = pipe.read(PART)
        if not part:
            return told
        told += part
    return None


def _work_and_end(work: Callable[[], object], answer: int, ends: float) -> NoReturn:
    """In the child: nothing of the parent's is to be cleaned up, flushed or told.

    Args:
        ends: seconds after which it is gone, also where the parent was killed.
    """
    status = 1
    try:
        # It is the parent's: asyncio would take a signal of this process for its own.
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGALRM})
        signal.setitimer(signal.ITIMER_REAL, ends)
        _let_go(answer)
        try:
            outcome = work()
        except AgentError as error:
            outcome = error
        with os.fdopen(answer, "wb") as pipe:
            pickle.dump(outcome, pipe)
        status = 0
    finally:
        os._exit(status)


def _let_go(answer: int) -> None:
    """Close what the parent has open, such as its lock and its sockets: once it is killed, the next
    agent must not find them held by a child that still works, and a caller must see the end."""
    # What is garbage of the parent's would close descriptors that are others by then.
    gc.freeze()
    os.closerange(STREAMS, answer)
    os.closerange(answer + 1, os.sysconf("SC_OPEN_MAX"))
