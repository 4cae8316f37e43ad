"""What follows from a record is worked out once for it, and for no other."""

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.derived import derived, derived_beside


class Number(Struct, frozen=True, dict=True):
    """A record."""

    value: int


def test_once_for_each_record() -> None:
    """An equal record, and one made from it, are others; what is kept is no part of the record."""
    calls = []

    @derived
    def double(number: Number) -> int:
        """Twice as much."""
        calls.append(number.value)
        return 2 * number.value

    @derived
    def square(number: Number) -> int:
        return number.value**2

    three = Number(3)

    assert [double(three), double(three), square(three), double(replace(three, value=4))] == [
        *(6, 6, 9, 8),
    ]
    assert calls == [3, 4]
    assert three == Number(3)
    assert repr(three) == "Number(value=3)"


def test_once_for_each_beside() -> None:
    """What is beside the record counts as the same while it is the very same object."""
    calls = []

    @derived_beside
    def total(number: Number, others: tuple[int, ...]) -> int:
        calls.append((number.value, others))
        return number.value + sum(others)

    three, five, some = Number(3), Number(5), tuple(range(1, 3))

    assert [total(three, some), total(three, some), total(five, some)] == [6, 6, 8]
    assert calls == [(3, (1, 2)), (5, (1, 2))]
    assert total(three, tuple(range(1, 3))) == 6
    assert total(three, (7,)) == 10
    assert len(calls) == 4
