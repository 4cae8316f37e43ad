"""VICI messages: ours say what the package `vici` reads in them, and a cut one is refused."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from vici.protocol import FiniteStream, Message

from ipsec_agent.host.understood import NOT_UNDERSTOOD
from ipsec_agent.host.vici_message import decoded
from tests.examples import examples

NAMES = st.text(max_size=20).filter(lambda name: len(name.encode()) < 256)
VALUES = st.binary(max_size=300)
MESSAGES = st.recursive(
    st.dictionaries(NAMES, st.one_of(VALUES, st.lists(VALUES, max_size=3)), max_size=4),
    lambda inner: st.dictionaries(NAMES, st.one_of(VALUES, inner), max_size=4),
    max_leaves=8,
)


@settings(deadline=None, max_examples=examples(60))
@given(MESSAGES)
def test_as_the_package_reads_it(message: dict[str, Any]) -> None:
    """Sections within sections, lists, empty and long values."""
    sent = Message.serialize(message)

    assert decoded(sent) == message
    assert decoded(b"before" + sent, 6) == Message.deserialize(FiniteStream(sent))


@settings(deadline=None, max_examples=examples(60))
@given(MESSAGES)
def test_a_cut_message(message: dict[str, Any]) -> None:
    """Wherever it is cut, nothing is made of the rest."""
    sent = Message.serialize({"all": message})

    for end in range(1, len(sent)):
        with pytest.raises(NOT_UNDERSTOOD):
            decoded(sent[:end])


@pytest.mark.parametrize(
    "sent",
    [
        b"\2",
        b"\6",
        b"\7\0",
        b"\0\0",
        b"\4\1a\3\1b\0\0\6",
        b"\3\1\xff\0\0",
        b"\5\0\0\6",
        b"\3\1a\0\5xyz",
    ],
    ids=[
        "end",
        "list's end",
        "kind 7",
        "kind 0",
        "value in a list",
        "no UTF-8",
        "item",
        "cut value",
    ],
)
def test_what_is_no_message(sent: bytes) -> None:
    """Elements where none of the kind can be."""
    with pytest.raises(NOT_UNDERSTOOD):
        decoded(sent)
