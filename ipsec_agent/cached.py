"""A reading that is kept until an event: what seldom changes is read seldom."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from typing import Generic, TypeVar

from msgspec import Struct

T = TypeVar("T")


class _Kept(Struct, Generic[T], frozen=True):
    value: T
    news: int
    read: float


class Cached(Generic[T]):
    """Reads again after an event or after some seconds; always, while no listener runs.

    Args:
        read: reads the truth; what it raises is handed on, and nothing is kept.
        lasts: seconds for which a reading is kept at the most, asked for each time.
    """

    def __init__(self, read: Callable[[], Awaitable[T]], lasts: Callable[[], float]) -> None:
        self._read = read
        self._lasts = lasts
        self._kept: _Kept[T] | None = None
        self._news = 0
        self._listening = False
        self._reading = asyncio.Lock()

    async def get(self) -> T:
        """The reading: no event was heard since before it began; two who ask at once share one."""
        async with self._reading:
            kept = self._kept
            if (
                kept is not None
                and self._listening
                and kept.news == self._news
                and time.monotonic() - kept.read < self._lasts()
            ):
                return kept.value
            news, began = self._news, time.monotonic()
            value = await self._read()
            self._kept = _Kept(value, news, began)
            return value

    @property
    def age(self) -> float:
        """Seconds since the newest reading began, 0 before the first."""
        return time.monotonic() - self._kept.read if self._kept else 0.0

    def outdated(self) -> None:
        """It may have changed; one that is being read just now may have missed that."""
        self._news += 1

    @contextmanager
    def changing(self) -> Iterator[None]:
        """What is done within may change it, even if it fails."""
        try:
            yield
        finally:
            self.outdated()

    @contextmanager
    def hearing(self, wake: Callable[[], None]) -> Iterator[Callable[[], None]]:
        """What a listener is to call: at each event, and once it listens."""

        def told() -> None:
            self._listening = True
            self.outdated()
            wake()

        try:
            yield told
        finally:
            self._listening = False
