"""What a listing says: an entry with the same bytes as in the last one is not read again."""

from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

T = TypeVar("T")


class Decoded(Generic[T]):
    """The records of listings of one kind.

    Args:
        decode: makes a record of an entry, None where it is none of ours.
        passed_over: the bytes of an entry of which no record has anything.
    """

    def __init__(
        self, decode: Callable[[bytes], T | None], *, passed_over: slice = slice(0, 0)
    ) -> None:
        self._decode = decode
        self._before, self._behind = slice(passed_over.start), slice(passed_over.stop, None)
        self._known: dict[bytes, T | None] = {}
        self._found: tuple[T, ...] = ()

    def all(self, entries: Iterable[bytes]) -> tuple[T, ...]:
        """The records of a whole listing; the same tuple as the last time if nothing changed."""
        before, now, found = self._known, {}, []
        for entry in entries:
            key = entry[self._before] + entry[self._behind]
            record = now[key] = before[key] if key in before else self._decode(entry)
            if record is not None:
                found.append(record)
        self._known = now
        if (records := tuple(found)) != self._found:
            self._found = records
        return self._found
