"""Steps are performed together, and each has its outcome."""

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from ipsec_agent.core.steps import Step
from ipsec_agent.errors import AgentError, CharonGoneError, CharonStartError, CharonTimeoutError

NO_CHARON = CharonGoneError, CharonStartError, CharonTimeoutError
"""After one of these no further step makes sense: no charon answers."""

Outcome = AgentError | None
"""Why a step could not be performed; None where it was."""


async def act(
    perform: Callable[[Step], Awaitable[None]], steps: Sequence[Step]
) -> tuple[Outcome, ...]:
    """Begin the steps in their order, none of which waits for another; what came of each."""

    async def outcome(step: Step) -> Outcome:
        try:
            await perform(step)
        except AgentError as error:
            return error
        return None

    if len(steps) == 1:
        return (await outcome(steps[0]),)
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(outcome(step)) for step in steps]
    return tuple(task.result() for task in tasks)
