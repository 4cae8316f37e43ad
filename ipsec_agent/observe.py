"""One pass of reading: all adapters at once, into one Observed."""

import asyncio
import time
from collections.abc import Awaitable
from typing import Any, Protocol

from ipsec_agent.core.esp import EspAbility
from ipsec_agent.core.model import Direction
from ipsec_agent.core.observed import (
    Charon,
    IkePorts,
    Inherited,
    NetworkFacts,
    Observed,
    Policy,
    RememberedPeer,
    SecurityAssociation,
    Switch,
)
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.errors import AgentError


class ReadableHost(Protocol):
    """What observing needs of the host."""

    async def charon(self) -> Charon | None:
        """The charon of ours, None where none runs; unresponsive where it does not answer."""

    async def ike_ports(self) -> IkePorts | None:
        """Who has IKE's UDP ports, once charon has been looked for."""

    async def policies(self) -> tuple[Policy, ...]:
        """The kernel's policies."""

    async def states(self) -> tuple[SecurityAssociation, ...]:
        """The kernel's SAs."""

    async def network(self) -> NetworkFacts:
        """The VM's links and addresses."""

    async def esp(self, network: NetworkFacts) -> EspAbility:
        """Whether the kernel can do the ESP that a VM with this network needs."""

    async def guard(self) -> GuardTable | None:
        """The guard's table, None where there is none."""

    async def saved_guard(self) -> str:
        """The mark of what the next boot loads as the guard, "" where there is none."""

    async def inherited(self) -> Inherited:
        """What an earlier charon had left when this one was started."""

    async def counters(self) -> tuple[tuple[str, int], ...]:
        """The kernel's counters of packets that IPsec lost."""

    async def switches(self) -> tuple[Switch, ...]:
        """Settings of the kernel that take IPsec from packets."""

    async def default_blocks(self) -> tuple[Direction, ...]:
        """Where the kernel blocks what no policy selects."""

    async def remembered(self) -> tuple[RememberedPeer, ...]:
        """The peers that had an SA with this VM."""


async def observe(host: ReadableHost) -> Observed:
    """Read everything once; what cannot be read is named, and stops nothing else."""
    now = time.time()
    async with asyncio.TaskGroup() as group:
        readings = [
            group.create_task(_charon_and_xfrm(host)),
            group.create_task(_network_and_esp(host)),
            *(
                group.create_task(_read(name, reading()))
                for name, reading in (
                    ("guard", host.guard),
                    ("saved_guard", host.saved_guard),
                    ("inherited", host.inherited),
                    ("counters", host.counters),
                    ("switches", host.switches),
                    ("default_blocks", host.default_blocks),
                    ("remembered", host.remembered),
                )
            ),
        ]
    found: dict[str, Any] = {}
    unreadable: dict[str, AgentError] = {}
    for reading in readings:
        for name, value in reading.result().items():
            if isinstance(value, AgentError):
                unreadable[name] = value
            else:
                found[name] = value
    return Observed(**found, unreadable=tuple(unreadable.items()), time=now)


async def _read(name: str, reading: Awaitable[object]) -> dict[str, object]:
    """What was read, or the error instead, by the name of its attribute in Observed."""
    try:
        return {name: await reading}
    except AgentError as error:
        return {name: error}


async def _charon_and_xfrm(host: ReadableHost) -> dict[str, object]:
    """charon's answer, and what the kernel has of IPsec after it.

    In this order: what charon calls installed and the kernel then lacks is lost, not still to come.
    An answer may take seconds, as list-sas waits for each IKE_SA that is being negotiated.
    """
    found = await _read("charon", host.charon())
    return {
        **found,
        **await _read("ike_ports", host.ike_ports()),
        **await _read("states", host.states()),
        **await _read("policies", host.policies()),
    }


async def _network_and_esp(host: ReadableHost) -> dict[str, object]:
    """Which ESP is needed depends on the addresses; while they are unknown no VM is healthy."""
    found = await _read("network", host.network())
    network = found["network"]
    if not isinstance(network, NetworkFacts):
        return found
    return {**found, **await _read("esp", host.esp(network))}
