"""What an earlier charon had left in the kernel when this one was started, as a record."""

from msgspec import Struct


class Inherited(Struct, frozen=True):
    """What an earlier charon had left in the kernel when this one was started.

    The kernel's times tell the same, but only by the second.

    Attributes:
        spis: of SAs.
        policies: indexes of policies.
    """

    spis: frozenset[int] = frozenset()
    policies: frozenset[int] = frozenset()
