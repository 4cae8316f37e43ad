"""What follows from a record is worked out once for it, and for no other."""

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.derived import derived


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
