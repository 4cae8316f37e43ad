"""Real messages with a few bytes or values changed, for decoders: hypothesis strategies."""

import json
from collections.abc import Sequence
from typing import Any

from hypothesis import strategies as st

Edit = tuple[str, int, bytes]

EDITS = st.lists(
    st.tuples(
        st.sampled_from(("set", "insert", "remove", "cut", "repeat")),
        st.integers(0, 2000),
        st.binary(min_size=1, max_size=4),
    ),
    max_size=4,
)

ODD: tuple[Any, ...] = (
    None, True, -1, 0, 2**70, 1.5, float("inf"), float("nan"), "", "x", "\ud800", "7" * 5000,
    [], {}, [[]], {"a": 1}, [1, "x"], "10.0.0.1/24",
)  # fmt: skip
"""Values that a place in a JSON document is not made for."""


def edited(message: bytes, edits: Sequence[Edit]) -> bytes:
    """A message after some edits, each at a place that is counted round."""
    for how, place, data in edits:
        at = place % (len(message) + 1)
        before, after = message[:at], message[at:]
        match how:
            case "set":
                message = before + data + after[len(data) :]
            case "insert":
                message = before + data + after
            case "remove":
                message = before + after[len(data) :]
            case "cut":
                message = before
            case _:
                message = before + after[:20] + after
    return message


def messages(*real: bytes) -> st.SearchStrategy[bytes]:
    """Random bytes, and real messages with edits."""
    return st.one_of(st.binary(max_size=300), st.builds(edited, st.sampled_from(real), EDITS))


def replaced(document: Any, place: int, value: Any) -> Any:
    """A copy of a JSON document in which the value at a place, counted round, is another."""
    places = list(_places(document))
    way = places[place % len(places)]
    if not way:
        return value
    copy = json.loads(json.dumps(document))
    inner = copy
    for step in way[:-1]:
        inner = inner[step]
    inner[way[-1]] = value
    return copy


def _places(document: Any, way: tuple[Any, ...] = ()) -> Any:
    yield way
    if isinstance(document, dict):
        for key, item in document.items():
            yield from _places(item, (*way, key))
    elif isinstance(document, list):
        for at, item in enumerate(document):
            yield from _places(item, (*way, at))


def documents(document: Any) -> st.SearchStrategy[Any]:
    """A JSON document in which one value is odd."""
    return st.builds(replaced, st.just(document), st.integers(0, 5000), st.sampled_from(ODD))


def texts(document: Any) -> st.SearchStrategy[str]:
    """The text of such a document, of one with edits, and any text."""
    real = json.dumps(document).encode()
    return st.one_of(
        documents(document).map(json.dumps),
        messages(real).map(lambda raw: raw.decode(errors="replace")),
        st.integers(1, 100_000).map(lambda depth: "[" * depth),
    )
