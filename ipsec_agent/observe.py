"""One pass of reading: all adapters at once, into one Observed."""

import asyncio
import time
from typing import Protocol

from ipsec_agent.core.observed import (
    Charon,
    NetworkFacts,
    Observed,
    Policy,
    SecurityAssociation,
)


class ReadableHost(Protocol):
    """What observing needs of the host."""

    async def charon(self) -> Charon | None:
        """The charon of ours, None where none runs; unresponsive where it does not answer."""

    async def policies(self) -> tuple[Policy, ...]:
        """The kernel's policies."""

    async def states(self) -> tuple[SecurityAssociation, ...]:
        """The kernel's SAs."""

    async def network(self) -> NetworkFacts:
        """The VM's links and addresses."""


async def observe(host: ReadableHost) -> Observed:
    """Read everything once.

    Raises:
        ExceptionGroup: of AgentErrors, where something could not be read.
    """
    now = time.time()
    async with asyncio.TaskGroup() as group:
        charon = group.create_task(host.charon())
        policies = group.create_task(host.policies())
        states = group.create_task(host.states())
        network = group.create_task(host.network())
    return Observed(charon.result(), policies.result(), states.result(), network.result(), now)
