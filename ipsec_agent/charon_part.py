"""charon's part of the machine: found, asked, started, ended, told."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import assert_never

from ipsec_agent.core.charon_log import Said
from ipsec_agent.core.config import Config
from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.liars import met
from ipsec_agent.core.observed import Charon, CharonProcess, IkeSa, LoadedConnection
from ipsec_agent.core.steps import (
    CharonStep,
    ContinueCharon,
    KillCharon,
    LoadAuthority,
    LoadConnection,
    LoadKey,
    Poke,
    ReinstallPolicies,
    RememberPeers,
    Renew,
    StartCharon,
    TerminateChild,
    TerminateSa,
    UnloadAuthority,
    UnloadConnection,
    UnloadKey,
    ViciStep,
)
from ipsec_agent.core.swanctl import credentials_mark
from ipsec_agent.errors import (
    CharonGoneError,
    CharonTimeoutError,
    KernelError,
)
from ipsec_agent.host import own_time
from ipsec_agent.host.charon import CharonClient, loaded_connections, open_charon
from ipsec_agent.host.charon_end import end_charon
from ipsec_agent.host.charon_events import CharonEvents
from ipsec_agent.host.charon_session import CharonSession
from ipsec_agent.host.charon_start import start_charon, start_charon_unit, write_conf
from ipsec_agent.host.deaths import Deaths
from ipsec_agent.host.drain_file import DrainFile
from ipsec_agent.host.ike_ports import IkePortsReader
from ipsec_agent.host.listed_certificates import ListedCertificates
from ipsec_agent.host.loaded import LoadedRecord
from ipsec_agent.host.made_with import MadeWith
from ipsec_agent.host.peers import PeerMemory
from ipsec_agent.host.process import (
    continue_charon,
    find_charon,
    foreign,
    is_well,
    kill_charon,
    note_pid,
)
from ipsec_agent.host.rehearsals import Rehearsals
from ipsec_agent.host.renewals import Renewals
from ipsec_agent.host.silence import Silence
from ipsec_agent.host.systemd import charon_unit
from ipsec_agent.observe import Reading

VICI_DEADLINE = 5.0
"""Seconds that charon may take for one answer; a healthy one takes milliseconds. This and PATIENCE
are the agent's own time (own_time.py): while it does not run itself, charon is not silent."""

START_DEADLINE = 15.0
"""Seconds that a pass waits for a charon that starts, which takes a tenth of one: meanwhile nothing
else is repaired."""

PATIENCE = 1.0
"""Seconds that a pass waits for charon's answer. One that hangs must not delay the repair of
the guard and the links: the question goes on, and its end wakes the loop."""

CREDENTIALS = "credentials"
"""The name of the credentials' mark among the connections' fingerprints; no connection of ours
has it."""

GLANCE = 1.0
"""Seconds between glances at what no event tells: a signal stopped charon, its socket is gone."""


class CharonPart:
    """One charon, and the steps that change it.

    Args:
        left: what the kernel has of IPsec, asked before charon is started.

    Attributes:
        renewals, rehearsals: negotiations with what is in force, and with what is to come.
    """

    def __init__(self, config: Config, left: Callable[[], Awaitable[Inherited]]) -> None:
        agent = config.agent
        self._config = config
        self._left = left
        self._peers = PeerMemory(Path(agent.state_dir) / "peers.json")
        self._run_dir = Path(agent.run_dir)
        self._conf = self._run_dir / "strongswan.conf"
        self._vici = Path(agent.vici_socket or self._run_dir / "charon.vici")
        self._loaded = LoadedRecord(self._run_dir / "loaded.json")
        self._drain = DrainFile(self._run_dir)
        self._events = CharonEvents(self._vici)
        self._made_with = MadeWith(self._run_dir / "made-with.json")
        self._sas: tuple[IkeSa, ...] = ()
        self._process: CharonProcess | None = None
        self._question: asyncio.Task[Charon] | None = None
        self._listed = ListedCertificates()
        self._connections = loaded_connections()
        self._ports = IkePortsReader(lambda: self._config.agent.interval / 2)
        self._asked = 0.0
        self._silence = Silence()
        self._deaths = Deaths()
        self._able: tuple[object, tuple[str, frozenset[str]]] = (None, ("", frozenset()))
        self.renewals = Renewals(self._vici, VICI_DEADLINE, lambda: self._wake())  # noqa: PLW0108 - set later
        self.rehearsals = Rehearsals(self._vici, VICI_DEADLINE)
        self._session = CharonSession(self._vici, VICI_DEADLINE)
        self._wake: Callable[[], None] = lambda: None

    def adopt(self, config: Config) -> None:
        """Take another config; charon itself gets to know of it by the steps of a plan."""
        self._config = config

    def outdate(self) -> None:
        """Keep nothing for the next look of who has IKE's ports."""
        self._ports.outdate()

    def readings(self) -> tuple[Reading, ...]:
        """What is read, in this order: what follows the first tells of the process it found."""
        return (
            ("charon", self.answer),
            ("drain", self._drain.read),
            ("ike_ports", lambda: self._ports.get(self._process)),
            ("deaths", self._deaths.listed),
            ("inherited", self._inherited),
            ("remembered", lambda: self._peers.peers(self._process)),
        )

    def _inherited(self) -> Inherited:
        return self._loaded.inherited(self._process) if self._process else Inherited()

    async def answer(self) -> Charon | None:
        """The charon of ours, None where none runs; unresponsive where it does not answer.

        Raises:
            ForeignCharonError: a charon of somebody else's owns the VICI socket.
        """
        process = find_charon(self._vici, self._conf)
        if process is None or self._process is None or process.identity != self._process.identity:
            await self.forget()
        self._process = process
        if process is None:
            return None
        self._deaths.expect(process)
        if not process.ours:
            raise foreign(process, self._vici)
        if process.stopped or not process.reachable:
            return Charon(process, responsive=False)
        note_pid(self._conf, process.pid)
        return await self._answer(process, PATIENCE)

    async def _answer(self, process: CharonProcess, patience: float) -> Charon | None:
        if self._question is None:
            self._question = self._begin(process)
        fresh = not self._question.done()
        await own_time.wait(self._question, PATIENCE)
        if not self._question.done():
            self._silence.watch(process)
            if patience > PATIENCE:
                await own_time.wait(self._question, patience - PATIENCE)
        if not self._question.done():
            self._question.add_done_callback(lambda _task: self._wake())
            return self._silent(process)
        question, self._question = self._question, None
        try:
            answer = question.result()
        except (CharonTimeoutError, TimeoutError):
            # The latter is the deadline over all its questions.
            took = time.monotonic() - self._asked
            # One in which this process hardly ran counts no more than two.
            self._silence.missed_deadline(process, min(took, 2 * VICI_DEADLINE))
            # At once, and not only at the next tick: the second miss has it replaced.
            self._begin(process).add_done_callback(lambda _task: self._wake())
            return self._silent(process)
        except CharonGoneError:
            gone = find_charon(self._vici, self._conf) is None
            return None if gone else self._silent(process)
        self._silence = Silence()
        # An answer to a question of an earlier pass is no news. That pass has repaired the kernel's
        # part, so a charon that is only slow may take its time now.
        return answer if fresh else await self._answer(process, VICI_DEADLINE)

    def _begin(self, process: CharonProcess) -> asyncio.Task[Charon]:
        self._asked = time.monotonic()
        self._question = asyncio.create_task(self._ask(process), name="charon's answer")
        return self._question

    def _silent(self, process: CharonProcess) -> Charon:
        silence = self._silence
        return Charon(
            process,
            responsive=False,
            missed=silence.missed,
            idle=silence.idle,
            silent=silence.seconds,
        )

    async def forget(self) -> None:
        """Drop what concerns a charon that is gone: the question, the session, the renewals."""
        question, self._question = self._question, None
        self._silence, self._sas = Silence(), ()
        await self._session.end()
        await self.renewals.end()
        if question is not None:
            question.cancel()
            await asyncio.wait({question})

    async def _ask(self, process: CharonProcess) -> Charon:
        async with (
            open_charon(self._vici, VICI_DEADLINE) as client,
            own_time.timeout(VICI_DEADLINE),
        ):
            remembered = self._loaded.fingerprints(process)
            renewing = self.renewals.under_way | self.rehearsals.names
            # Sent at once, and answered in this order.
            listed, sas, authorities, keys = await asyncio.gather(
                client.connections(self._connections),
                client.sas(),
                client.authorities(),
                client.keys(),
            )
            connections = tuple(
                LoadedConnection(item.name, remembered.get(item.name, ""), item.children)
                for item in listed
                if item.name not in renewing
            )
            self._sas = met(self._made_with.see(process, sas, connections), self._sas)
            version, exchanges = await self._abilities(process, client)
            return Charon(
                process=process,
                version=version,
                connections=connections,
                authorities=authorities,
                keys=self.rehearsals.without(keys),
                credentials=remembered.get(CREDENTIALS, ""),
                sas=self._sas,
                renewing=renewing,
                sets=self._made_with.sets(process),
                attempts=self.renewals.attempts,
                exchanges=exchanges,
                certificates=await self._listed.get(process, client, sas),
            )

    async def _abilities(
        self, process: CharonProcess, client: CharonClient
    ) -> tuple[str, frozenset[str]]:
        """Version and key exchanges; asked once of each process: every question is a wait."""
        if self._able[0] != process.identity:
            self._able = process.identity, (await client.version(), await client.exchanges())
        return self._able[1]

    async def perform(self, step: CharonStep) -> None:
        """Perform a step.

        Raises:
            AgentError: it could not be performed.
        """
        match step:
            case StartCharon():
                # Recorded before it, so that it is told from what this charon makes.
                left = await self._left()
                await self._start()
                if self._process is not None:
                    self._loaded.inherit(self._process, left)
                    self._made_with.begin(self._process)
                await self._events.expect()
            case ContinueCharon(process):
                continue_charon(process)
            case KillCharon(process):
                self._deaths.asked(process)
                await kill_charon(process)
            case Renew(connection):
                self.renewals.begin(connection)
            case Poke(peers):
                self._peers.poke(peers)
            case RememberPeers(peers):
                self._peers.write(peers)
            case _:
                await self._tell(step)

    async def _tell(self, step: ViciStep) -> None:
        async with self._session.client(self._process) as client:
            match step:
                case LoadAuthority(authority):
                    await client.load_authority(authority)
                case LoadKey(credentials, only):
                    await client.load_key(credentials, only=only)
                    self._remember(CREDENTIALS, credentials_mark(credentials))
                case LoadConnection(connection, fingerprint):
                    self._forget(connection.name)  # first, so that a cut costs one more load
                    self._made_with.loading(self._process, connection)
                    await client.load_connection(connection)
                    self._remember(connection.name, fingerprint)
                case ReinstallPolicies(connection_name, child, action):
                    await client.reinstall(child, connection_name, action)
                case UnloadConnection(name):
                    self._forget(name)
                    await client.unload_connection(name)
                case TerminateSa(unique_id, _, at_once):
                    await client.terminate(unique_id, at_once=at_once)
                case TerminateChild(unique_id):
                    await client.terminate_child(unique_id)
                case UnloadKey(key_id):
                    await client.unload_key(key_id)
                case UnloadAuthority(name):
                    await client.unload_authority(name)
                case _:
                    assert_never(step)

    def _remember(self, name: str, digest: str) -> None:
        if self._process is not None:
            self._loaded.remember(self._process, name, digest)

    def _forget(self, name: str) -> None:
        if self._process is not None:
            self._loaded.forget(self._process, name)

    async def _start(self) -> None:
        """Write charon's configuration, start it, and wait until it answers."""
        config = self._config
        program = write_conf(self._conf, config, vici_socket=self._vici)
        unit = charon_unit()
        start = start_charon if unit is None else start_charon_unit(unit)
        with self._ports.starting():
            self._process = await start(
                program,
                conf_path=self._conf,
                run_dir=self._run_dir,
                vici_socket=self._vici,
                library_path=config.agent.charon.library_path,
                deadline=min(config.prestart_timeout, START_DEADLINE),
            )
        self._deaths.expect(self._process)

    async def reopen_log(self) -> None:
        """Have charon open its log file again, which may have been rotated away."""
        if self._process is not None and self._process.ours:
            async with open_charon(self._vici, VICI_DEADLINE) as client:
                await client.reopen_log()

    async def stop(self) -> None:
        """End charon cleanly: it sends DELETE to its peers and takes its policies away."""
        await end_charon(self._vici, self._conf)

    async def watch(self, wake: Callable[[], None], heard: Callable[[Said], None]) -> None:
        """Wake at every event of charon's, at its death, and when it is unwell, until cancelled."""
        self._wake = wake
        async with asyncio.TaskGroup() as group:
            group.create_task(self._events.watch(wake, heard), name="charon events")
            group.create_task(self._deaths.run(wake, self._ended), name="charon's death")
            group.create_task(self._watch_health(wake), name="charon's health")

    def _ended(self, process: CharonProcess) -> None:
        if self._process is not None and self._process.identity == process.identity:
            self._process = None

    async def _watch_health(self, wake: Callable[[], None]) -> None:
        while True:
            await asyncio.sleep(GLANCE)
            if self._process is not None and not is_well(self._process, self._vici):
                wake()
            # Whoever held a port may have let go of it.
            with contextlib.suppress(KernelError):
                if self._ports.changed():
                    wake()
