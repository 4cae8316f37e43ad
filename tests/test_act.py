"""Steps that are performed together."""

import asyncio

import pytest

from ipsec_agent.act import act
from ipsec_agent.core.steps import Step, UnloadConnection
from ipsec_agent.errors import CharonRefusedError

STEPS = tuple(UnloadConnection(name) for name in ("a", "b", "c"))


async def test_each_has_its_outcome() -> None:
    """All have begun, in their order, before the first ends; one that fails stops no other."""
    begun: list[Step] = []
    all_begun = asyncio.Event()
    refused = CharonRefusedError("refused")

    async def perform(step: Step) -> None:
        begun.append(step)
        if len(begun) == len(STEPS):
            all_begun.set()
        await all_begun.wait()
        if step == STEPS[1]:
            raise refused

    async with asyncio.timeout(5):
        assert await act(perform, STEPS) == (None, refused, None)
    assert begun == list(STEPS)


async def test_who_stops_waiting_stops_all() -> None:
    """Nothing goes on behind a loop that has ended."""
    ended: list[Step] = []

    async def perform(step: Step) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            ended.append(step)

    with pytest.raises(TimeoutError):
        async with asyncio.timeout(0.01):
            await act(perform, STEPS)
    assert len(ended) == len(STEPS)
    assert all(step in ended for step in STEPS)
