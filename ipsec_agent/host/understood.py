"""What the kernel or a program says and cannot be read: one documented error instead of many."""

import errno
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

import msgspec

NOT_UNDERSTOOD = (
    ArithmeticError,
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
    struct.error,
    # No ValueError in older versions.
    msgspec.MsgspecError,
)
"""What code that reads a format raises where the format is another one."""


@contextmanager
def understood(error: Callable[[Exception], Exception]) -> Iterator[None]:
    """Raise one error for whatever the reading within stumbles over.

    Args:
        error: makes it, out of what was raised.
    """
    try:
        yield
    except NOT_UNDERSTOOD as cause:
        raise error(cause) from cause


def as_told() -> AbstractContextManager[None]:
    """Raise an OSError (EBADMSG) where a message is none of the kernel's kind."""
    return understood(lambda _error: OSError(errno.EBADMSG, os.strerror(errno.EBADMSG)))
