"""The gentle shutdown in time: wait for the other jobs, then end charon; the guard stays.

A program of its own, with or without an agent: whatever happens to that, the wait goes on. Each
step is bounded, and so is the whole.
"""

import asyncio
import contextlib
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Protocol, TypeVar

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.drain import QUIET, Drain, Job, Phase, Wait
from ipsec_agent.errors import AgentError, ControlError, StartError
from ipsec_agent.host.birth import began
from ipsec_agent.host.charon_end import end_charon
from ipsec_agent.host.control_client import NotRunningError, ask
from ipsec_agent.host.drain_file import GIVES_UP, DrainFile
from ipsec_agent.host.jobs import Jobs, Places
from ipsec_agent.host.process import find_charon

TICK = 0.5
"""Seconds between looks at who runs."""

FIRST_LOOK = 5.0
"""Seconds that the first may take on a busy machine: those who run are named however short the
wait is."""

GONE = 5.0
"""Seconds without a charon and an agent after which there is nothing left to end: where systemd
starts a charon again that has died, it is back by then."""

ANSWER, STOP = 5.0, 45.0
"""Seconds that an agent may take to say how it is, and to end charon."""

HURRY = (signal.SIGTERM, signal.SIGINT)
"""The second one ends the wait."""

T = TypeVar("T")
D = TypeVar("D")


class Order(Struct, frozen=True):
    """What is to be done.

    Attributes:
        socket: the agent's.
        timeout: seconds to wait for other jobs at the most.
        keep: only wait, and leave charon as it is.
    """

    run_dir: Path
    vici_socket: Path
    socket: str
    timeout: float
    keep: bool = False
    places: Places = Places()

    @property
    def conf(self) -> Path:
        """charon's strongswan.conf."""
        return self.run_dir / "strongswan.conf"


class Teller(Protocol):
    """Who tells an operator what happens."""

    def waits(self, jobs: tuple[Job, ...], left: float) -> None:
        """It waits for these, so many seconds more; told at each look."""

    def says(self, event: str, jobs: tuple[Job, ...] = ()) -> None:
        """Something has happened, or is over; the jobs are those that it did not wait for."""

    def warns(self, error: AgentError) -> None:
        """Something failed, and the drain goes on without it."""


class Drainer:
    """One drain."""

    def __init__(self, order: Order, teller: Teller) -> None:
        self._order = order
        self._teller = teller
        self._file = DrainFile(order.run_dir)
        own = (order.run_dir / "agent.pid", order.run_dir / "charon.pid")
        self._jobs = Jobs(order.places, own)
        self._looking: asyncio.Future[tuple[Job, ...]] | None = None
        self._signals = 0
        self._warned = False
        self._gives_up = self._hurries = False
        self._signalled = asyncio.Event()
        now = time.time()
        self._drain = Drain(
            pid=os.getpid(),
            started=began(os.getpid()) or 0,
            phase=Phase.WAITING,
            since=now,
            deadline=now + order.timeout,
        )

    async def run(self) -> None:
        """Wait, then end charon.

        Raises:
            AgentError: another drain does not end, or charon does not.
        """
        with self._heeding_signals():
            # The newer one counts, with its own patience.
            await self._file.end()
            try:
                left = await self._wait()
                if not (self._gives_up or self._order.keep):
                    await self._end(left)
                    return
            finally:
                # What it has ended stays told.
                if self._drain.phase is not Phase.ENDED:
                    self._file.remove()
        done = "the wait was given up" if self._gives_up else "the wait is over"
        self._teller.says(f"{done}; IPsec goes on", left)

    @contextlib.contextmanager
    def _heeding_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        for number in HURRY:
            loop.add_signal_handler(number, self._hurried)
        loop.add_signal_handler(GIVES_UP, self._given_up)
        try:
            yield
        finally:
            for number in (*HURRY, GIVES_UP):
                loop.remove_signal_handler(number)

    def _hurried(self) -> None:
        self._signals += 1
        self._hurries = self._signals > 1
        if self._signals == 1 and self._drain.phase is Phase.WAITING:
            self._teller.says("a second signal (Ctrl-C) ends the wait now")
        self._signalled.set()

    def _given_up(self) -> None:
        self._gives_up = True
        self._signalled.set()

    async def _wait(self) -> tuple[Job, ...]:
        """Wait until it is over; who runs still."""
        order, clock = self._order, asyncio.get_running_loop().time
        quiet = QUIET if order.places.jobs.is_dir() else 0.0
        wait, gone = Wait(clock() + order.timeout, quiet), clock() + GONE
        self._note()
        # An agent that is asked looks again, and so sees the drain.
        answers = _begin(partial(_answers, order.socket))
        within = FIRST_LOOK
        while not (self._gives_up or self._hurries):
            jobs = await self._look(within)
            within = TICK
            if jobs is not None:
                wait = wait.looked(jobs, clock())
                self._note(jobs)
            if wait.over(clock()):
                break
            if _has_charon(order) or (answers.done() and answers.result()):
                gone = clock() + GONE
            elif clock() >= gone:
                break
            self._teller.waits(wait.jobs or (), wait.left(clock()))
            self._signalled.clear()
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(min(TICK, wait.left(clock()))):
                    await self._signalled.wait()
        return wait.jobs or ()

    async def _look(self, within: float) -> tuple[Job, ...] | None:
        """Who runs now; None where the look is not over yet, and goes on.

        A process that hangs in the kernel may hold one for ever.
        """
        if self._looking is None:
            self._looking = _begin(self._jobs.look)
        await asyncio.wait({self._looking}, timeout=within)
        if not self._looking.done():
            return None
        looked, self._looking = self._looking, None
        return looked.result()

    def _note(self, jobs: tuple[Job, ...] = (), phase: Phase = Phase.WAITING) -> None:
        drain = replace(self._drain, phase=phase, waits=jobs)
        if drain == self._drain and self._file.path.exists():
            return
        self._drain = drain
        try:
            self._file.write(drain)
        except StartError as error:
            # A full disk must not keep IPsec from its end.
            if not self._warned:
                self._teller.warns(error)
            self._warned = True

    async def _end(self, left: tuple[Job, ...]) -> None:
        """End charon, through the agent where one runs."""
        order = self._order
        self._note(left, Phase.ENDING)
        answers = await _aside(partial(_answers, order.socket), ANSWER, default=False)
        found = answers or _has_charon(order)
        if found:
            self._teller.says("charon ends")
        try:
            if answers:
                stop = partial(ask, order.socket, "stop", deadline=STOP)
                await _aside(stop, STOP + ANSWER, default=None)
        except NotRunningError:
            pass
        except ControlError as error:
            self._teller.warns(error)
        # Nothing is left of it where the agent did so.
        await end_charon(order.vici_socket, order.conf)
        self._note(left, Phase.ENDED)
        ended = "IPsec has ended" if found else f"neither agent nor charon runs in {order.run_dir}"
        self._teller.says(f"{ended}; the guard stays", left)


def _answers(socket: str) -> bool:
    """Whether an agent says how it is."""
    try:
        ask(socket, "status", deadline=ANSWER)
    except ControlError:
        return False
    return True


def _has_charon(order: Order) -> bool:
    try:
        found = find_charon(order.vici_socket, order.conf)
    except AgentError:
        return False
    return found is not None and found.ours


async def _aside(work: Callable[[], T], seconds: float, *, default: D) -> T | D:
    """What comes of work that blocks; the default where that takes longer.

    Raises:
        AgentError: the work raised it.
    """
    future = _begin(work)
    await asyncio.wait({future}, timeout=seconds)
    return future.result() if future.done() else default


def _begin(work: Callable[[], T]) -> "asyncio.Future[T]":
    """Begin work that blocks, in a thread which does not keep the program from its end."""
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def settle(outcome: Callable[[], None]) -> None:
        # Nobody waits any more where the loop is closed.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(lambda: None if future.cancelled() else outcome())

    def run() -> None:
        try:
            found = work()
        except (AgentError, OSError) as error:
            settle(partial(future.set_exception, error))
        else:
            settle(partial(future.set_result, found))

    threading.Thread(target=run, daemon=True).start()
    return future
