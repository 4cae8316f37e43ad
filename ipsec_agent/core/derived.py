"""What follows from a record alone: worked out when it is first asked for, and kept with it."""

from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

R = TypeVar("R", bound=Struct)
S = TypeVar("S")
T = TypeVar("T")


def derived(make: Callable[[R], T]) -> Callable[[R], T]:
    """A function of a frozen record that is called once for it; the record's class has `dict=True`.

    As functools.cached_property, for what the record's own module cannot know.
    """
    name = f"{make.__module__}.{make.__qualname__}"

    def get(record: R) -> T:
        kept = vars(record)
        if name not in kept:
            kept[name] = make(record)
        found: T = kept[name]
        return found

    get.__doc__ = make.__doc__
    return get


def derived_beside(make: Callable[[R, S], T]) -> Callable[[R, S], T]:
    """Likewise for a record and what is beside it, which must be frozen: called again once that is
    another object than the last time, however equal.
    """
    name = f"{make.__module__}.{make.__qualname__}"

    def get(record: R, beside: S) -> T:
        kept = vars(record)
        if name not in kept or kept[name][0] is not beside:
            kept[name] = beside, make(record, beside)
        found: T = kept[name][1]
        return found

    get.__doc__ = make.__doc__
    return get
