"""The machine as the loop sees it: the host adapters behind one set of verbs."""

import asyncio
import contextlib
import os
from collections.abc import AsyncIterator, Callable
from pathlib import Path

from ipsec_agent.core.config import Config
from ipsec_agent.core.model import Authority, Connection, Credentials
from ipsec_agent.core.observed import (
    Charon,
    CharonProcess,
    LoadedConnection,
    NetworkFacts,
    Policy,
    SecurityAssociation,
)
from ipsec_agent.core.strongswan_conf import render
from ipsec_agent.errors import (
    CharonGoneError,
    CharonTimeoutError,
    ForeignCharonError,
    StartError,
)
from ipsec_agent.host.charon import CharonClient, open_charon, watch_charon
from ipsec_agent.host.files import write_whole
from ipsec_agent.host.links import Links, open_links
from ipsec_agent.host.loaded import LoadedRecord
from ipsec_agent.host.process import (
    find_charon,
    locate_program,
    start_charon,
    stop_charon,
    watch_death,
)
from ipsec_agent.host.xfrm import Xfrm, open_xfrm

VICI_DEADLINE = 5.0
"""Seconds that charon may take for one answer; a healthy one takes milliseconds."""


class Machine:
    """The host adapters behind the verbs that observing and acting need."""

    def __init__(self, config: Config, xfrm: Xfrm, links: Links) -> None:
        agent = config.agent
        run_dir = Path(agent.run_dir)
        self._config = config
        self._xfrm = xfrm
        self._links = links
        self._run_dir = run_dir
        self._conf = run_dir / "strongswan.conf"
        self._vici = Path(agent.vici_socket or run_dir / "charon.vici")
        self._loaded = LoadedRecord(run_dir / "loaded.json")
        self._process: CharonProcess | None = None

    async def charon(self) -> Charon | None:
        """The charon of ours, None where none runs; unresponsive where it does not answer.

        Raises:
            ForeignCharonError: a charon of somebody else's owns the VICI socket.
        """
        process = find_charon(self._vici, self._conf)
        self._process = process
        if process is None:
            return None
        if not process.ours:
            raise foreign(process, self._vici)
        try:
            async with open_charon(self._vici, VICI_DEADLINE) as client:
                return await self._ask(client, process)
        except CharonTimeoutError:
            return Charon(process, responsive=False)
        except CharonGoneError:
            return (
                None
                if find_charon(self._vici, self._conf) is None
                else Charon(process, responsive=False)
            )

    async def _ask(self, client: CharonClient, process: CharonProcess) -> Charon:
        remembered = self._loaded.fingerprints(process)
        connections = tuple(
            LoadedConnection(item.name, remembered.get(item.name, ""), item.children)
            for item in await client.connections()
        )
        return Charon(
            process=process,
            version=await client.version(),
            connections=connections,
            authorities=await client.authorities(),
            keys=await client.keys(),
            sas=await client.sas(),
        )

    async def policies(self) -> tuple[Policy, ...]:
        """The kernel's policies."""
        return await self._xfrm.policies()

    async def states(self) -> tuple[SecurityAssociation, ...]:
        """The kernel's SAs."""
        return await self._xfrm.states()

    async def network(self) -> NetworkFacts:
        """The VM's links and addresses."""
        return await self._links.facts()

    async def start_charon(self) -> None:
        """Write charon's configuration, start it, and wait until it answers."""
        program = locate_program(self._config.agent.charon.program)
        text = render(
            self._config, run_dir=str(self._run_dir), vici_socket=str(self._vici), program=program
        )
        write_whole(self._conf, text, mode=0o644)
        self._process = await start_charon(
            program,
            conf_path=self._conf,
            run_dir=self._run_dir,
            vici_socket=self._vici,
            library_path=self._config.agent.charon.library_path,
            deadline=self._config.prestart_timeout,
        )

    @contextlib.asynccontextmanager
    async def _client(self) -> AsyncIterator[CharonClient]:
        async with open_charon(self._vici, VICI_DEADLINE) as client:
            yield client

    async def load_authority(self, authority: Authority) -> None:
        """Have charon trust a CA."""
        async with self._client() as client:
            await client.load_authority(authority)

    async def load_key(self, credentials: Credentials) -> None:
        """Give charon the private key and the intermediates."""
        async with self._client() as client:
            await client.load_key(credentials)

    async def load_connection(self, connection: Connection, fingerprint: str) -> None:
        """Load a connection; it is forgotten first, so that a cut costs one more load."""
        if self._process is not None:
            self._loaded.forget(self._process, connection.name)
        async with self._client() as client:
            await client.load_connection(connection)
        if self._process is not None:
            self._loaded.remember(self._process, connection.name, fingerprint)

    async def reinstall(self, connection: str, child: str) -> None:
        """Have charon install a child's policies anew."""
        async with self._client() as client:
            await client.uninstall(child, connection)
            await client.install(child, connection)

    async def unload_connection(self, name: str) -> None:
        """Unload a connection."""
        if self._process is not None:
            self._loaded.forget(self._process, name)
        async with self._client() as client:
            await client.unload_connection(name)

    async def terminate(self, unique_id: int) -> None:
        """End an IKE_SA."""
        async with self._client() as client:
            await client.terminate(unique_id)

    async def delete_policy(self, policy: Policy) -> None:
        """Delete a policy from the kernel."""
        await self._xfrm.delete_policy(policy)

    async def delete_state(self, state: SecurityAssociation) -> None:
        """Delete an SA from the kernel."""
        await self._xfrm.delete_state(state.source, state.destination, state.spi)

    async def unload_key(self, key_id: str) -> None:
        """Take a private key away."""
        async with self._client() as client:
            await client.unload_key(key_id)

    async def unload_authority(self, name: str) -> None:
        """Trust a CA no more."""
        async with self._client() as client:
            await client.unload_authority(name)

    async def stop_charon(self, deadline: float) -> None:
        """End charon cleanly: it sends DELETE to its peers and takes its policies away."""
        process = find_charon(self._vici, self._conf)
        if process is not None and process.ours:
            await stop_charon(process, deadline)

    async def watch(self, wake: Callable[[], None], heard: Callable[[str, int, str], None]) -> None:
        """Wake the loop at every event of charon, the kernel and the links, for ever."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._xfrm.watch(wake), name="xfrm events")
            group.create_task(self._links.watch(wake), name="link events")
            group.create_task(watch_charon(self._vici, wake, heard), name="charon events")
            group.create_task(self._watch_death(wake), name="charon's death")

    async def _watch_death(self, wake: Callable[[], None]) -> None:
        while True:
            process = self._process
            if process is None:
                # Nobody to watch until a pass has found or started one.
                await asyncio.sleep(0.5)
                continue
            await watch_death(process.pid, wake)
            self._process = None


def foreign(process: CharonProcess, vici: Path) -> ForeignCharonError:
    """The refusal to command a charon that is not ours."""
    return ForeignCharonError(
        f"a charon that is not ours (pid {process.pid}) owns the VICI socket {vici}",
        hint="stop that one (systemctl disable --now strongswan), or set agent.vici_socket",
    )


@contextlib.asynccontextmanager
async def open_machine(config: Config) -> AsyncIterator[Machine]:
    """The machine, once it is fit for IPsec.

    Raises:
        StartError: not root.
        KernelError: the kernel lacks XFRM.
        CharonStartError: charon is not installed.
        ForeignCharonError: somebody else's charon is on the socket.
    """
    if os.geteuid() != 0:
        raise StartError(
            "ipsec-agent run needs root: it changes IPsec policies", hint="run it with sudo"
        )
    locate_program(config.agent.charon.program)
    async with open_xfrm() as xfrm, open_links() as links:
        machine = Machine(config, xfrm, links)
        await machine.policies()
        await machine.charon()
        yield machine
