"""A reading is kept only while events tell of each change."""

import asyncio

import pytest

from ipsec_agent.cached import Cached
from ipsec_agent.errors import KernelError


class Thing:
    """What is read: how often, and what a reading in progress waits for."""

    def __init__(self) -> None:
        self.readings = 0
        self.slow: asyncio.Event | None = None
        self.refuses = False

    async def read(self) -> int:
        """The number of this reading."""
        self.readings += 1
        number = self.readings
        if self.slow is not None:
            await self.slow.wait()
        if self.refuses:
            raise KernelError("refused")
        return number


@pytest.fixture
def thing() -> Thing:
    """A thing to be read."""
    return Thing()


def kept(thing: Thing, lasts: float = 60) -> Cached[int]:
    """A reading of it."""
    return Cached(thing.read, lambda: lasts)


async def test_stands_until_an_event(thing: Thing) -> None:
    """Not read again, until the listener tells of an event, and wakes with it."""
    reading, woken = kept(thing), []
    with reading.hearing(lambda: woken.append(1)) as told:
        told()
        assert [await reading.get(), await reading.get()] == [1, 1]
        told()
        assert [await reading.get(), await reading.get()] == [2, 2]
    assert woken == [1, 1]


async def test_nothing_is_kept_while_nobody_listens(thing: Thing) -> None:
    """Before the listener says that it listens, and after its end."""
    reading = kept(thing)
    assert [await reading.get(), await reading.get()] == [1, 2]
    with reading.hearing(lambda: None) as told:
        assert [await reading.get(), await reading.get()] == [3, 4]
        told()
        # What was read before it listened may be outdated.
        assert [await reading.get(), await reading.get()] == [5, 5]
    assert [await reading.get(), await reading.get()] == [6, 7]


async def test_lasts_some_seconds(thing: Thing) -> None:
    """What no event tells of is seen at last, too."""
    reading = kept(thing, lasts=0.05)
    with reading.hearing(lambda: None) as told:
        told()
        assert await reading.get() == 1
        await asyncio.sleep(0.06)
        assert await reading.get() == 2


async def test_an_event_during_a_reading(thing: Thing) -> None:
    """The reading may have missed it: it is handed on, and not kept."""
    reading, thing.slow = kept(thing), asyncio.Event()
    with reading.hearing(lambda: None) as told:
        told()
        async with asyncio.TaskGroup() as group:
            first = group.create_task(reading.get())
            await asyncio.sleep(0)
            told()
            thing.slow.set()
        assert first.result() == 1
        assert await reading.get() == 2


async def test_two_who_ask_at_once(thing: Thing) -> None:
    """They share one reading; where nobody listens, or one fails, each has its own."""
    reading, thing.slow = kept(thing), asyncio.Event()

    async def both() -> list[int | BaseException]:
        async with asyncio.timeout(5):
            return [*await asyncio.gather(reading.get(), reading.get(), return_exceptions=True)]

    thing.slow.set()
    assert await both() == [1, 2]
    with reading.hearing(lambda: None) as told:
        told()
        assert await both() == [3, 3]
        told()
        thing.refuses = True
        assert [type(answer) for answer in await both()] == [KernelError, KernelError]


async def test_an_own_change(thing: Thing) -> None:
    """Its own event need not have come yet; and one that fails may have changed something."""
    reading = kept(thing)
    with reading.hearing(lambda: None) as told:
        told()
        assert await reading.get() == 1
        with reading.changing():
            pass
        assert await reading.get() == 2
        with pytest.raises(KernelError), reading.changing():
            raise KernelError("refused")
        assert await reading.get() == 3


async def test_a_refused_reading_is_tried_again(thing: Thing) -> None:
    """And the one before it is not shown in its place."""
    reading = kept(thing)
    with reading.hearing(lambda: None) as told:
        told()
        assert await reading.get() == 1
        told()
        thing.refuses = True
        for _ in range(2):
            with pytest.raises(KernelError):
                await reading.get()
        thing.refuses = False
        assert await reading.get() == 4
