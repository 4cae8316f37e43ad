"""YAML as a tree of entries, each with its lines."""

from collections.abc import Iterator
from typing import Any

import yaml
from msgspec.structs import replace

from ipsec_agent.core.manifest import pem_indentation, surroundings
from ipsec_agent.core.manifest.complaint import Complaints, shown_key
from ipsec_agent.core.manifest.yaml_faults import SECOND_DOCUMENT, explained, forbidden
from ipsec_agent.core.manifest.yaml_scanner import ScanningLoader
from ipsec_agent.core.terse import Terse

MAX_NODES = 20_000
"""A config has hundreds; more is an alias bomb."""

MAX_TEXT = 1 << 20
"""Characters of the largest config."""

LONGEST_NUMBER = 40
"""Characters; what is longer is no number of a config, and slow to convert."""

Scalar = bool | int | float | str | None


class Entry(Terse, frozen=True):
    """A value and its lines.

    Attributes:
        line: 1-based, of its key where it has one.
        last: 1-based, its last line.
        column: 0-based, of its key where it has one.
        value: the scalar; for a mapping or a list None.
        items: the mapping's entries, None for other kinds.
        elements: the list's entries, None for other kinds.
        style: of a scalar: its quote, `|` or `>`, "" for one without quotes.
        void: whether what is written there has been complained of and is of no further use.
    """

    unshown = ("value",)

    line: int
    last: int = 0
    column: int = 0
    value: Scalar = None
    items: dict[str, "Entry"] | None = None
    elements: tuple["Entry", ...] | None = None
    style: str = ""
    void: bool = False

    @property
    def empty(self) -> bool:
        """Whether nothing is written there."""
        return not (self.void or self.kind) and self.value is None

    @property
    def kind(self) -> str:
        """What it is, where it is neither a scalar nor void: a mapping or a list."""
        if self.items is not None:
            return "mapping"
        return "" if self.elements is None else "list"

    @property
    def incomplete(self) -> bool:
        """Whether it, or an element of it, is void."""
        return self.void or any(item.void for item in self.elements or ())

    def voided(self) -> "Entry":
        """The same place, of no further use."""
        return Entry(self.line, self.last, self.column, void=True)

    def get(self, key: str) -> "Entry | None":
        """The entry of a mapping's key, None without one."""
        return (self.items or {}).get(key)


def read(text: str, complaints: Complaints) -> Entry | None:
    """The tree of a text; None, with a complaint, where it is no YAML.

    Certificates that are not indented, and what a terminal put around the config, are reported, and
    read as if they were right, so that the rest of the text is checked, too.
    """
    if len(text) > MAX_TEXT:
        complaints.error(
            0,
            "",
            f"the config is longer than {MAX_TEXT} characters",
            "check that this is the right file",
        )
        return None
    text = text.removeprefix("\ufeff")
    found = Complaints(complaints.file)
    tree = _composed(text, found)
    if tree is None:
        mended = _mended(text, complaints)
        if mended is not None:
            found = Complaints(complaints.file)
            tree = _composed(mended, found)
    complaints.found += found.found
    return tree


def _mended(text: str, complaints: Complaints) -> str | None:
    """The text without the mistakes that can be told from the rest; None without any."""
    coloured = surroundings.coloured(text)
    if coloured:
        complaints.error(
            coloured,
            "",
            "not valid YAML: it contains the colours of a terminal",
            "save it again, with `bosh --no-color`",
        )
        text = surroundings.without_colours(text)
    around = surroundings.foreign(text)
    for lines in around:
        complaints.error(lines.first, "", lines.message, lines.remedy)
    text = surroundings.without(text, around) if around else text
    misplaced = pem_indentation.misplaced(text)
    for block in misplaced:
        complaints.error(block.first, block.key, block.message, block.remedy)
    text = pem_indentation.indented(text, misplaced) if misplaced else text
    return text if coloured or around or misplaced else None


def _composed(text: str, complaints: Complaints) -> Entry | None:
    try:
        loader = _Loader(text)
        try:
            node = loader.get_node() if loader.check_node() else None
            second = _second_document(loader)
            if second:
                complaints.error(second, "", *SECOND_DOCUMENT)
                if not isinstance(node, yaml.MappingNode):
                    return None
        finally:
            loader.dispose()
        return Entry(1, 1, items={}) if node is None else _Converter(complaints).entry(node, "")
    except yaml.MarkedYAMLError as error:
        line, message, remedy = explained(error)
    except yaml.reader.ReaderError as error:
        line, message, remedy = forbidden(text, error)
    except ValueError:
        # PyYAML converts without asking: `%YAML` with 5,000 digits, `"\U77777777"`.
        line = 0
        message = "not valid YAML: a number or an escape such as \\U… is too large"
        remedy = "check that this is the right file"
    except (_TooLargeError, RecursionError):
        line = 0
        message = "the file is nested too deeply or has too many values for a config"
        remedy = "check that this is the right file"
    complaints.error(line, "", message, remedy)
    return None


def _second_document(loader: Any) -> int:
    """The line, 1-based, where a document begins behind the first one; 0 where there is none.

    One with nothing in it is none: a file may end with `---`.

    Args:
        loader: PyYAML's, of which the first document was taken; it has no types.
    """
    while loader.check_node():
        line = int(loader.get_event().start_mark.line) + 1
        try:
            event = loader.peek_event()
        except yaml.YAMLError:
            # What is wrong with it does not matter.
            return line
        if not isinstance(event, yaml.ScalarEvent) or event.value or event.style:
            return line
        # It, and the document's end.
        loader.get_event()
        loader.get_event()
    return 0


class _TooLargeError(Exception):
    """More nodes than a config has, or one that holds itself."""


class _Loader(ScanningLoader):
    """Composes nodes, and stops at more than a config has."""

    composed = 0

    def compose_node(self, parent: yaml.Node | None, index: int) -> yaml.Node | None:
        self.composed += 1
        if self.composed > MAX_NODES:
            raise _TooLargeError
        return super().compose_node(parent, index)


class _Converter:
    """PyYAML's nodes to entries; each node is counted, as aliases let few become many."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._open: set[int] = set()
        self._count = 0

    def entry(self, node: yaml.Node, key: str) -> Entry:
        """An entry for a node at a key path.

        Raises:
            _TooLargeError: too many nodes, or one that holds itself.
        """
        self._count += 1
        if self._count > MAX_NODES or id(node) in self._open:
            raise _TooLargeError
        self._open.add(id(node))
        try:
            return self._of(node, key)
        finally:
            self._open.discard(id(node))

    def _of(self, node: yaml.Node, key: str) -> Entry:
        line, column = node.start_mark.line + 1, node.start_mark.column
        if braces := _in_braces(node):
            return Entry(line, line, column, braces)
        if isinstance(node, yaml.MappingNode):
            items = self._items(node, key)
            last = max((item.last for item in items.values()), default=line)
            return Entry(line, last, column, items=items)
        if isinstance(node, yaml.ScalarNode):
            # A block scalar ends where the next token begins.
            last = node.end_mark.line + (0 if node.style in {"|", ">"} else 1)
            return Entry(line, max(line, last), column, _scalar(node), style=node.style or "")
        elements = tuple(
            self.entry(item, f"{key}[{position}]") for position, item in enumerate(node.value)
        )
        last = max((item.last for item in elements), default=line)
        return Entry(line, last, column, elements=elements)

    def _items(self, node: yaml.MappingNode, key: str) -> dict[str, Entry]:
        items: dict[str, Entry] = {}
        merged: dict[str, Entry] = {}
        for name_node, value_node in node.value:
            if name_node.tag == "tag:yaml.org,2002:merge":
                for source in self._sources(value_node, key):
                    merged = {**source, **merged}
                continue
            name = str(name_node.value) if isinstance(name_node, yaml.ScalarNode) else "?"
            path = f"{key}.{shown_key(name)}" if key else shown_key(name)
            line = name_node.start_mark.line + 1
            if name in items:
                self._complaints.error(
                    line,
                    path,
                    f"listed twice, here and in line {items[name].line}",
                    "remove one",
                )
            value = self.entry(value_node, path)
            items[name] = replace(
                value, line=line, last=max(line, value.last), column=name_node.start_mark.column
            )
        return {**merged, **items}

    def _sources(self, node: yaml.Node, key: str) -> Iterator[dict[str, Entry]]:
        """The mappings behind `<<`, the strongest first."""
        for source in node.value if isinstance(node, yaml.SequenceNode) else [node]:
            merged = self.entry(source, key).items
            if merged is None:
                where = f"{key}.<<" if key else "<<"
                message = "only a mapping can be merged with `<<`"
                remedy = "write `<<: *name` of a mapping that has `&name`, or delete the line"
                self._complaints.error(source.start_mark.line + 1, where, message, remedy)
            yield merged or {}


def _in_braces(node: yaml.Node) -> str:
    """`{{name}}` without quotes: a variable to other programs, a mapping in a mapping to YAML."""
    names = []
    for _ in range(2):
        if not isinstance(node, yaml.MappingNode) or not node.flow_style or len(node.value) != 1:
            return ""
        node, value = node.value[0]
        names.append(value.value)
    alone = isinstance(node, yaml.ScalarNode) and names == ["", ""]
    return "{{" + str(node.value) + "}}" if alone else ""


def _scalar(node: yaml.ScalarNode) -> Scalar:
    """The value in YAML 1.1's terms; a date, bytes and `1:30` are what was written."""
    text = str(node.value)
    kind = node.tag.rpartition(":")[2]
    if kind == "null":
        return None
    if kind == "bool":
        return _BOOLEANS.get(text.lower(), text)
    if kind in {"int", "float"} and len(text) <= LONGEST_NUMBER and ":" not in text:
        return _number(node, text, kind)
    return text


_BOOLEANS = {"yes": True, "no": False, "true": True, "false": False, "on": True, "off": False}


def _number(node: yaml.ScalarNode, text: str, kind: str) -> int | float | str:
    reader = yaml.constructor.SafeConstructor()
    try:
        if kind == "int":
            return int(reader.construct_yaml_int(node))
        return float(reader.construct_yaml_float(node))
    except (ValueError, IndexError):  # a tag may call anything a number
        return text
