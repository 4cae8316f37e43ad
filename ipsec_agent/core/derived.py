"""What follows from a record alone: worked out when it is first asked for, and kept with it."""

from collections.abc import Callable
from typing import TypeVar

from msgspec import Struct

R = TypeVar("R", bound=Struct)
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
