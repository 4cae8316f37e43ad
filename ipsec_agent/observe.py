"""One pass of reading: everything at once, into one Observed."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import Any

from ipsec_agent.core.observed import Observed
from ipsec_agent.errors import AgentError

Reading = tuple[str, Callable[[], object]]
"""An attribute of Observed, and what reads it, at once or when awaited."""


async def observe(chains: Iterable[Sequence[Reading]]) -> Observed:
    """Read everything once; what cannot be read is named, and stops nothing else.

    Args:
        chains: what is read at the same time; within each, one after the other.
    """
    now = time.time()
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(_in_turn(chain)) for chain in chains]
    found: dict[str, Any] = {}
    unreadable: dict[str, AgentError] = {}
    for task in tasks:
        for name, value in task.result():
            if isinstance(value, AgentError):
                unreadable[name] = value
            else:
                found[name] = value
    return Observed(**found, unreadable=tuple(unreadable.items()), time=now)


async def _in_turn(chain: Sequence[Reading]) -> list[tuple[str, object]]:
    return [(name, await _read(read)) for name, read in chain]


async def _read(read: Callable[[], object]) -> object:
    """What was read, or the error instead."""
    try:
        value = read()
        return await value if isinstance(value, Awaitable) else value
    except AgentError as error:
        return error
