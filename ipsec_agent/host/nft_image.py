"""A table of nf_tables as the kernel's own bytes: read, told from an altered one, put back.

No expression is decoded but counters: two tables of one form do the same, whatever they say. The
form is a digest of what a load can say of table, chains, sets and rules, without handles, counter
values and what packets add by themselves. What else the kernel tells (Linux 6.14 adds the number
of a set's elements) is no part of it. Only the parts of this one table are asked for, so that a
foreign set of any size costs nothing. Between two changes of any table only counters and what
packets add are read again: the kernel numbers its changes (nft_gencursor, the generation).
"""

import hashlib
from collections.abc import Collection, Iterator, Mapping, Sequence

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.derived import derived
from ipsec_agent.host.nft_wire import (
    APPEND,
    CREATE,
    NFPROTO_UNSPEC,
    Channel,
    InterruptedDumpError,
    Message,
    attribute,
    attributes,
    joined,
    nested,
    text,
)

NEW_TABLE, GET_TABLE, DELETE_TABLE, NEW_CHAIN, GET_CHAIN = 0, 1, 2, 3, 4
NEW_RULE, GET_RULE, NEW_SET, GET_SET = 6, 7, 9, 10
NEW_ELEMENTS, GET_ELEMENTS, GET_GENERATION = 12, 13, 16

TABLE = 1
"""The table's name: the same number in every message about a part of it."""

RULE_CHAIN, RULE_EXPRESSIONS = 2, 4
SET_NAME, SET_FLAGS, SET_ID, SET_EXPRESSION, SET_EXPRESSIONS = 2, 3, 10, 17, 18
ELEMENTS_SET, ELEMENTS, LISTED = 2, 3, 1
ELEMENT_KEY, ELEMENT_FLAGS = 1, 3
EXPRESSION_NAME, EXPRESSION_DATA = 1, 2
ANONYMOUS, INTERVAL_END = 1, 1

_OF_TABLE = frozenset({1, 2, 6, 7})  # name, flags, user's data, owner
_OF_CHAIN = frozenset({1, 3, 4, 5, 7, 10, 12})  # table, name, hook, policy, type, flags, data
_OF_RULE = frozenset({1, 2, 4, 5, 7})  # table, chain, expressions, compat, user's data
_OF_SET = frozenset({1, 2, 3, 4, 5, 6, 7, 8, 9, 11, 12, 13, 15, 17, 18})
"""All but its id, its handle, and what the kernel finds by itself."""

FIXED = ("outside4", "outside6", "listed4", "listed6")
"""The sets whose elements belong to the form. Links come and go, the rest are counters."""

IN_ONE_MESSAGE = 500
"""Elements: an attribute holds 64 KiB."""

MOST = 1 << 17
"""Elements of each set that are read, unless somebody says how many there should be."""

ATTEMPTS = 20
COUNTER = b"counter\0"

Attributes = Mapping[int, bytes]


class Image(Struct, frozen=True, dict=True):
    """A table, of one moment.

    Attributes:
        generation: of all tables, when it was read: another one after each change.
        family: nf_tables' number.
        elements: of the sets that were asked for and of anonymous ones, by the set's name.
        whole: no set had too many elements.
        known_form: that of an earlier image since which no table has changed, "" where there is
            none.
    """

    generation: int
    family: int
    table: Attributes
    sets: tuple[Attributes, ...]
    chains: tuple[Attributes, ...]
    rules: tuple[Attributes, ...]
    elements: Mapping[str, tuple[bytes, ...]]
    whole: bool = True
    known_form: str = ""

    @property
    @derived
    def form(self) -> str:
        """The digest, "" of a table without rules, which anybody may have made, or not whole."""
        if not self.rules or not self.whole:
            return ""
        if self.known_form:
            return self.known_form
        digest = hashlib.sha256()
        for kind, body in self._written():
            digest.update(len(body).to_bytes(4) + bytes([kind]) + body)
        return digest.hexdigest()[:32]

    def replacement(self) -> list[Message]:
        """The changes that put it in the place of whatever table bears its name."""
        name = joined({TABLE: self.table[TABLE]})
        return [
            (NEW_TABLE, CREATE, name),
            (DELETE_TABLE, 0, name),
            *(
                (kind, CREATE | (APPEND if kind == NEW_RULE else 0), body)
                for kind, body in self._written()
            ),
        ]

    def _written(self) -> Iterator[tuple[int, bytes]]:
        """What a load says, in the order that a transaction needs: what is named comes first."""
        yield NEW_TABLE, joined(self.table)
        for number, one in enumerate(self.sets, 1):
            yield NEW_SET, joined(_set_uncounted(one)) + attribute(SET_ID, number.to_bytes(4))
        for one in self.sets:
            if is_fixed(one):
                # As intervals can be added: an end before a start.
                elements = sorted(self.elements[name_of(one)], key=_place)
                for body in element_lists(self.table[TABLE], name_of(one), elements):
                    yield NEW_ELEMENTS, body
        for one in self.chains:
            yield NEW_CHAIN, joined(one)
        for one in self.rules:
            yield NEW_RULE, joined(_rule_uncounted(one))


def read_image(
    channel: Channel,
    family: int,
    name: str,
    sets: Collection[str],
    most: int = MOST,
    *,
    before: Image | None = None,
) -> Image | None:
    """A table as it is, None where there is none.

    Args:
        sets: those whose elements are wanted, besides anonymous ones.
        most: elements of each. Where a set has more, the image is not whole, and the channel must
            not be used again: the kernel takes the longer for each part of a set the more of them
            it has told (nft_set_rbtree.c, nft_rbtree_walk).
        before: an earlier image of the same table, read with the same `sets`.

    Raises:
        OSError: the kernel refuses, is late, or the tables change all the time.
        ValueError: its answer is not understood; LookupError likewise.
    """
    for _ in range(ATTEMPTS):
        try:
            generation = _generation(channel)
            found = _read(channel, family, name, generation, before)
            if found is not None:
                found = _filled(channel, found, sets, most)
            if (found is not None and not found.whole) or generation == _generation(channel):
                return found
        except (InterruptedDumpError, FileNotFoundError):
            # A set that was asked for has gone.
            continue
    raise TimeoutError("the tables change all the time")


def name_of(one: Attributes) -> str:
    """The name of a set."""
    return _string(one[SET_NAME])


def is_fixed(one: Attributes) -> bool:
    """Whether a set's elements belong to the form: by its name, or because it is part of a rule."""
    return name_of(one) in FIXED or _is_anonymous(one)


def _is_anonymous(one: Attributes) -> bool:
    return bool(int.from_bytes(one.get(SET_FLAGS, b"")) & ANONYMOUS)


def chain_of(rule: Attributes) -> str:
    """The name of a rule's chain."""
    return _string(rule[RULE_CHAIN])


def counters(listed: bytes) -> Iterator[bytes]:
    """The data of each counter in a list of expressions."""
    # Most have none, and need not be taken apart.
    if COUNTER in listed:
        for _, one in attributes(listed):
            found = dict(attributes(one))
            if found[EXPRESSION_NAME] == COUNTER:
                yield found[EXPRESSION_DATA]


def element_lists(table: bytes, name: str, elements: Sequence[bytes]) -> Iterator[bytes]:
    """The messages' attributes that add elements to a set, some in each.

    Args:
        table: the name of its table, as an attribute has it.
        elements: the attributes of each.
    """
    of_set = attribute(TABLE, table) + text(ELEMENTS_SET, name)
    for at in range(0, len(elements), IN_ONE_MESSAGE):
        part = b"".join(nested(LISTED, one) for one in elements[at : at + IN_ONE_MESSAGE])
        yield of_set + nested(ELEMENTS, part)


def _read(
    channel: Channel, family: int, name: str, generation: int, before: Image | None
) -> Image | None:
    """A table without the elements of its sets, but for those of `before` that are the same."""
    of_table = text(TABLE, name)
    try:
        ((_, payload),) = channel.ask(GET_TABLE, of_table, family)
    except FileNotFoundError:
        return None

    def parts(kind: int, kept: frozenset[int]) -> tuple[Attributes, ...]:
        found = (
            dict(attributes(payload))
            for of, payload in channel.ask(kind, of_table, family, dump=True)
            if of == family
        )
        # Of chains the kernel lists every table's.
        return tuple(
            {number: value for number, value in one.items() if number in kept}
            for one in found
            if _string(one[TABLE]) == name
        )

    if before is not None and before.generation == generation and before.form:
        return replace(
            before,
            rules=parts(GET_RULE, _OF_RULE),
            elements={
                name_of(one): before.elements[name_of(one)] for one in before.sets if is_fixed(one)
            },
            known_form=before.form,
        )
    return Image(
        generation=generation,
        family=family,
        table={it: value for it, value in attributes(payload) if it in _OF_TABLE},
        sets=parts(GET_SET, _OF_SET),
        chains=parts(GET_CHAIN, _OF_CHAIN),
        rules=parts(GET_RULE, _OF_RULE),
        elements={},
    )


def _filled(channel: Channel, image: Image, sets: Collection[str], most: int) -> Image:
    """The same with elements, as far as no set has too many."""
    of_table = attribute(TABLE, image.table[TABLE])
    found = dict(image.elements)
    for one in image.sets:
        name = name_of(one)
        if (name in sets or _is_anonymous(one)) and name not in found:
            listed: list[bytes] = []
            of_set = of_table + text(ELEMENTS_SET, name)
            for _, payload in channel.ask(GET_ELEMENTS, of_set, image.family, dump=True):
                part = dict(attributes(payload)).get(ELEMENTS, b"")
                listed += (element for _, element in attributes(part))
                if len(listed) > most:
                    return replace(image, elements=found, whole=False)
            found[name] = tuple(listed)
    return replace(image, elements=found)


def _place(element: bytes) -> tuple[bytes, bool]:
    found = dict(attributes(element))
    flags = int.from_bytes(found.get(ELEMENT_FLAGS, b""))
    return found.get(ELEMENT_KEY, b""), not flags & INTERVAL_END


def _generation(channel: Channel) -> int:
    ((_, payload),) = channel.ask(GET_GENERATION, b"", NFPROTO_UNSPEC)
    return int.from_bytes(dict(attributes(payload))[1])


def _set_uncounted(one: Attributes) -> Attributes:
    return {
        number: _uncounted(value)
        if number == SET_EXPRESSION
        else _all_uncounted(value)
        if number == SET_EXPRESSIONS
        else value
        for number, value in one.items()
    }


def _rule_uncounted(one: Attributes) -> Attributes:
    return {
        number: _all_uncounted(value) if number == RULE_EXPRESSIONS else value
        for number, value in one.items()
    }


def _all_uncounted(listed: bytes) -> bytes:
    if COUNTER not in listed:
        return listed
    return b"".join(attribute(number, _uncounted(one)) for number, one in attributes(listed))


def _uncounted(expression: bytes) -> bytes:
    """An expression; a counter without its values."""
    counts = dict(attributes(expression)).get(EXPRESSION_NAME) == COUNTER
    return attribute(EXPRESSION_NAME, COUNTER) if counts else expression


def _string(value: bytes) -> str:
    return value.rstrip(b"\0").decode(errors="replace")
