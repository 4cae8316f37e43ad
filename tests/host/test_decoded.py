"""What a listing says is read once."""

from ipsec_agent.host.decoded import Decoded


def test_what_is_the_same_is_read_once() -> None:
    """Of a listing only those entries are decoded that the last one did not have."""
    decoded: list[bytes] = []

    def decode(body: bytes) -> str | None:
        decoded.append(body)
        return body.decode() if body != b"none" else None

    reading = Decoded(decode)

    assert reading.all((b"one", b"none", b"two")) == ("one", "two")
    assert reading.all((b"none", b"two", b"three", b"two")) == ("two", "three", "two")
    assert decoded == [b"one", b"none", b"two", b"three"]
    assert reading.all((b"one",)) == ("one",)
    assert decoded[-1] == b"one"


def test_the_same_listing() -> None:
    """Who has seen the last listing sees by the tuple alone that nothing has changed."""
    reading = Decoded(bytes.decode)
    first = reading.all((b"one", b"two"))

    assert reading.all((b"one", b"two")) is first
    assert reading.all((b"two", b"one")) == ("two", "one")
    assert reading.all((b"two",)) == ("two",)


def test_what_is_passed_over() -> None:
    """Bytes that no record has make no other entry."""
    reading = Decoded(lambda entry: (entry[:1], entry[3:]), passed_over=slice(1, 3))
    first = reading.all((b"a00b", b"c00d"))

    assert first == ((b"a", b"b"), (b"c", b"d"))
    assert reading.all((b"a11b", b"c22d")) is first
    assert reading.all((b"a11x", b"c22d")) == ((b"a", b"x"), (b"c", b"d"))
