"""The composition root: opens the machine, starts the tasks, answers signals, closes in reverse."""

import asyncio
import contextlib
import signal
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import structlog
from msgspec.structs import replace

from ipsec_agent import admission
from ipsec_agent.answers import Answers
from ipsec_agent.candidate import candidate, warned
from ipsec_agent.config_file import Loaded, agent_of, load
from ipsec_agent.config_watch import ConfigWatch, first_complaint
from ipsec_agent.core.charon_log import Said
from ipsec_agent.core.config import AgentConfig, GuardMode
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.health_answer import health_answer
from ipsec_agent.core.problems.guard import GuardState
from ipsec_agent.core.status import Snapshot, sentence
from ipsec_agent.errors import AgentError, CharonError, ConfigError, ControlError, StartError
from ipsec_agent.guard_status import warning_of_clear
from ipsec_agent.history import History
from ipsec_agent.host.control import serve_control
from ipsec_agent.host.essential_addresses import (
    read_own_essential_addresses,
)
from ipsec_agent.host.event_file import EventFile
from ipsec_agent.host.faults import FaultFile
from ipsec_agent.host.files import make_directory, only_agent
from ipsec_agent.host.systemd import notify, notify_reloading, watchdog_interval
from ipsec_agent.host.writers import refuse_writable_directory
from ipsec_agent.log import ABOUT
from ipsec_agent.machine import Machine, open_machine
from ipsec_agent.reconcile import Look, Reconciler
from ipsec_agent.rehearsal import refuse_refused
from ipsec_agent.rehearsal import verb as rehearsed
from ipsec_agent.renew import verb

LAST_PASS = 5.0
"""Seconds after `prestart_timeout` in which a first pass that still runs may say what it found."""

IN_FORCE = 20.0
"""Seconds that `reload` waits until the new config is in force; the status says what is not."""


class Stopped(Exception):  # noqa: N818 - it is how a task group is told to end, no error
    """The agent has to end."""


class Agent:
    """The daemon: one loop, its events, its control socket."""

    def __init__(
        self,
        path: Path,
        loaded: Loaded,
        machine: Machine,
        essential: EssentialAddresses,
        *,
        force: bool,
    ) -> None:
        self._path = path
        self._file = ConfigWatch(path, loaded)
        self._machine = machine
        self._stop = asyncio.Event()
        self._hangup = asyncio.Event()
        self._taking = asyncio.Lock()
        self._passed = asyncio.Event()
        self._converged = asyncio.Event()
        self._pass_ended = time.monotonic()
        self._force = force
        watchdog = watchdog_interval()
        self._loop = Reconciler(
            machine,
            loaded.config,
            self._finished,
            essential,
            most_pause=watchdog / 3 if watchdog else None,
        )
        self._state_dir = loaded.config.agent.state_dir
        self._history = History(self._loop, self._state_dir)
        self._answers = Answers(self._loop, path, self._history.complete)
        self._faults = FaultFile(Path(self._state_dir) / "faults.json")
        self._events = EventFile(Path(self._state_dir) / "events.json")
        self._loop.reporter.resume(self._faults.read(), self._events.read())
        self._log = structlog.get_logger("agent")

    async def run(self) -> None:
        """Live until a signal or the verb `stop`.

        Raises:
            StartError: IPsec did not start within `prestart_timeout`.
        """
        with self._signals():
            async with serve_control(
                Path(self._loop.config.agent.run_dir) / "control.sock",
                {**self._answers.verbs, "health": self._health},
                {
                    "reload": self._reload,
                    "rehearse": rehearsed(self._loop, self._machine.rehearsals, self._judged),
                    "renew": verb(self._loop, self._machine.ask_renewals),
                    "stop": self._end,
                    "guard-up": self._guard_up,
                    "guard-down": self._guard_down,
                },
            ):
                try:
                    await self._tasks()
                except* Stopped:
                    notify("STOPPING=1")
                finally:
                    if self._loop.snapshot is not None:
                        self._events.keep(self._loop.snapshot.events, at_once=True)
                        self._faults.keep(self._loop.snapshot.kept, at_once=True)
                    self._history.close()

    async def _tasks(self) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(self._loop.run(), name="reconcile")
            group.create_task(self._watch(), name="watch")
            group.create_task(self._prestart(), name="prestart")
            group.create_task(self._reloads(), name="reload")
            group.create_task(self._look_at_config(), name="config")
            group.create_task(self._answers.serve(), name="metrics")
            group.create_task(self._history.prover.run(), name="proof")
            group.create_task(self._until_stopped(), name="stop")

    async def _watch(self) -> None:
        await self._machine.watch(self._loop.heard, self._heard)

    async def _until_stopped(self) -> None:
        await self._stop.wait()
        raise Stopped

    async def _prestart(self) -> None:
        limit = self._loop.config.prestart_timeout
        try:
            async with asyncio.timeout(limit):
                await self._converged.wait()
        except TimeoutError:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(LAST_PASS):
                    await self._passed.wait()
            snapshot = self._loop.snapshot
            because = snapshot.problems[0].message if snapshot and snapshot.problems else ""
            raise StartError(
                f"IPsec did not start within prestart_timeout ({limit:g} s)"
                + (f": {because}" if because else ""),
                hint="fix the cause, or raise prestart_timeout",
            ) from None
        notify("READY=1")
        placement = self._loop.snapshot.placement if self._loop.snapshot else None
        self._log.info("ready", address=str(placement.address) if placement else "")

    def _finished(self, snapshot: Snapshot) -> None:
        self._pass_ended = time.monotonic()
        self._passed.set()
        self._events.keep(snapshot.events)
        self._faults.keep(snapshot.kept)
        self._history.follow(snapshot)
        notify(f"STATUS={sentence(snapshot)}", "WATCHDOG=1")
        if snapshot.state.value in {"running", "degraded"}:
            self._converged.set()

    def _heard(self, said: Said) -> None:
        if self._loop.reporter.heard(said, time.time()):
            self._loop.heard()

    @contextlib.contextmanager
    def _signals(self) -> Any:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._asked_to_end, number)
        loop.add_signal_handler(signal.SIGHUP, self._asked_to_reload)
        try:
            yield
        finally:
            for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
                loop.remove_signal_handler(number)

    def _asked_to_end(self, number: signal.Signals) -> None:
        self._log.info("stopping; charon and traffic continue", signal=signal.Signals(number).name)
        self._stop.set()
        # A second one means now.
        asyncio.get_running_loop().remove_signal_handler(number)

    def _asked_to_reload(self) -> None:
        notify_reloading()
        self._hangup.set()

    async def _reloads(self) -> None:
        while True:
            await self._hangup.wait()
            self._hangup.clear()
            try:
                await self._take_config()
            except AgentError:
                # It is in log and status.
                pass
            finally:
                # Before IPsec is enforced a reload must not release what waits for it.
                if self._converged.is_set():
                    notify("READY=1")

    async def _look_at_config(self) -> None:
        while True:
            await asyncio.sleep(self._loop.config.agent.interval)
            if await asyncio.to_thread(self._file.look):
                self._tell_of_config()

    def _tell_of_config(self) -> None:
        self._loop.reporter.config_state = self._file.state
        self._loop.wake.set()

    async def _take_config(self, *, asks: bool = False, force: bool = False) -> tuple[str, ...]:
        """Take the config as it is on disk; what it is warned of. A refusal is told in log and
        status, too.

        Args:
            asks: refuse to end optional mode where that cuts peers off.
            force: take a certificate that most of the peers refuse.

        Raises:
            AgentError: it is refused, and the old one stays in force.
        """
        try:
            # One after the other: else what was read first might be adopted last.
            async with self._taking:
                with self._history.prover.held():
                    return await self._reread(asks=asks, force=force)
        except AgentError as error:
            complaints = list(error.complaints)
            self._log.error("reload refused", message=error.message, complaints=complaints)
            self._file.refuse(first_complaint(error), "" if complaints else error.hint)
            self._tell_of_config()
            raise

    async def _judged(self, *, asks: bool) -> tuple[Loaded, EssentialAddresses, admission.Told]:
        loop = self._loop
        loaded, essential = await candidate(
            self._path, loop.config, self._machine, loop.snapshot, force=self._force
        )
        config = loaded.config
        ends = loop.config.optional and not config.optional
        look = await loop.look() if ends else Look(None)
        ending = admission.end_optional(config, look.snapshot, asks=asks)
        later = admission.begins_later(self._state_dir, config)
        return loaded, essential, admission.Told(loaded.warnings, ending, later)

    async def _reread(self, *, asks: bool, force: bool) -> tuple[str, ...]:
        loaded, essential, told = await self._judged(asks=asks)
        config = loaded.config
        for one in told.ending:
            self._log.warning("optional mode ends", message=one)
        await refuse_refused(self._loop, self._machine.rehearsals, config, force=force)
        self._loop.adopt(config, essential)
        self._file.adopt(loaded)
        # Before the pass that takes the config begins, or it would need another one to be told.
        self._tell_of_config()
        self._log.info("config reloaded", config=str(self._path))
        try:
            await self._machine.reopen_log()
        except CharonError as error:
            self._log.warning("charon did not open its log again", message=error.message)
        for one in told.later:
            self._log.warning("config", complaint=one)
        return told.all

    async def _health(self, _request: dict[str, Any]) -> dict[str, Any]:
        config = self._loop.config
        look = await self._loop.look(within=config.agent.interval)
        return health_answer(config, look.snapshot, time.monotonic() - self._pass_ended)

    async def _reload(self, request: dict[str, Any]) -> dict[str, Any]:
        asks, force = (bool(request.get(name)) for name in ("asks", "force"))
        warnings = await self._take_config(asks=asks, force=force)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(IN_FORCE):
                # It may have begun or even ended while charon opened its log again.
                await self._loop.in_force()
        return {"warnings": list(warnings)}

    async def _guard_down(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._log.warning("guard taken down until `guard up` or the agent's next start")
        self._loop.lower_guard(lowered=True)
        snapshot = await self._loop.passed()
        return {"guard_up": snapshot.observed.guard is not None}

    async def _guard_up(self, request: dict[str, Any]) -> dict[str, Any]:
        if self._loop.config.agent.guard is GuardMode.NONE:
            raise ControlError(
                "the config in force says agent.guard: none",
                hint="remove that line, and run `ipsec-agent reload`",
            )
        force = self._force or bool(request.get("force"))
        if not force:
            admission.refuse_lockout(
                self._loop.config, await self._machine.network(), self._loop.essential
            )
        self._loop.lower_guard(lowered=False)
        snapshot = await self._loop.passed()
        return {"guard_up": snapshot.guard_state is GuardState.UP}

    async def _end(self, _request: dict[str, Any]) -> dict[str, Any]:
        self._log.info("stopping charon, then the agent")
        # A pass would take the charon that ends for one to be repaired.
        async with self._loop.halted():
            await self._machine.stop_charon()
            self._stop.set()
        return {}


@contextlib.asynccontextmanager
async def open_agent(
    path: Path, read: Callable[[], Loaded], *, force: bool
) -> AsyncIterator[Agent]:
    """Everything that the daemon needs, in the order of need.

    Args:
        read: reads the config.
        force: enforce even a config that would cut this VM off.

    Raises:
        AgentError: the config is refused, or this machine does not let the agent start.
    """
    loaded = warned(read())
    config = loaded.config
    run_dir = Path(config.agent.run_dir)
    ABOUT.set(replace(ABOUT.get(), socket=f"{run_dir}/control.sock"))
    make_directory(run_dir)
    make_directory(Path(config.agent.state_dir), mode=0o700)
    if config.agent.vici_socket:
        refuse_writable_directory(Path(config.agent.vici_socket).parent)
    with only_agent(run_dir / "agent.pid"):
        async with open_machine(config) as machine:
            essential = read_own_essential_addresses()
            if not force:
                admission.refuse_lockout(config, await machine.network(), essential)
            yield Agent(path, loaded, machine, essential, force=force)


async def run(path: Path, read: Callable[[], Loaded], *, force: bool = False) -> None:
    """Run the daemon on a config until it is told to end.

    Args:
        path: of the config, for reloads.
        read: reads it at the start.
        force: as for `open_agent`.

    Raises:
        AgentError: one sentence why it could not start, or go on.
    """
    async with contextlib.AsyncExitStack() as stack:
        try:
            agent = await stack.enter_async_context(open_agent(path, read, force=force))
        except AgentError as error:
            error.hint = "; ".join(filter(None, (error.hint, await _warning_of_clear(path))))
            raise
        try:
            await agent.run()
        except ExceptionGroup as group:
            # Not `except*`: what is raised there is wrapped in a group again by Python 3.11.2.
            expected, surprise = group.split(AgentError)
            if expected is None or surprise is not None:
                raise
            raise _first(expected) from None


async def _warning_of_clear(path: Path) -> str:
    """What to say where a start is refused and nothing holds packets back, "" where it does."""
    config, agent = None, AgentConfig()
    try:
        config = load(path).config
        agent = config.agent
    except ConfigError as error:
        agent = agent_of(error)
    return await warning_of_clear(config, agent)


def _first(group: ExceptionGroup[AgentError]) -> AgentError:
    error = group.exceptions[0]
    return _first(error) if isinstance(error, ExceptionGroup) else error
