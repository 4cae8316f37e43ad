"""YAML with the line of every value, and the hints that its own errors lack."""

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import yaml

from ipsec_agent.core.complaint import Complaints

MAX_NODES = 20_000
"""A config has hundreds; more is an alias bomb."""

MAX_TEXT = 1 << 20
"""Characters of the largest config."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A value and where it stands.

    Attributes:
        line: 1-based.
        column: 0-based, of its key where it has one.
        value: None, bool, int, float, str; for a mapping or a list None.
        items: the mapping's entries, None for other kinds.
        elements: the list's entries, None for other kinds.
    """

    line: int
    column: int = 0
    value: Any = field(default=None, repr=False)
    items: dict[str, "Entry"] | None = None
    elements: tuple["Entry", ...] | None = None

    @property
    def empty(self) -> bool:
        """Whether nothing is written there."""
        return self.value is None and self.items is None and self.elements is None

    def get(self, key: str) -> "Entry | None":
        """The entry of a mapping's key, None without one."""
        return (self.items or {}).get(key)


def read(text: str, complaints: Complaints) -> Entry | None:
    """The tree of a text; None, with a complaint, where it is no YAML."""
    if len(text) > MAX_TEXT:
        complaints.error(0, "", f"the config is longer than {MAX_TEXT} characters")
        return None
    misplaced = tuple(_misindented(text, complaints))
    if misplaced:
        return None
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        return Entry(1, items={}) if node is None else _Converter(complaints).entry(node, "")
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        # The snippet that YAML would show could hold a key's lines.
        complaints.error(
            mark.line + 1 if mark else 0,
            "",
            f"this is no YAML: {_problem(error)}",
            "compare this line's indentation with those around it",
        )
    except yaml.YAMLError:
        complaints.error(0, "", "this is no YAML: it holds characters that YAML forbids")
    except RecursionError:
        complaints.error(0, "", "this is nested too deeply to be a config")
    except ValueError:
        complaints.error(0, "", "this is no YAML: a value cannot be read")
    return None


def _problem(error: yaml.MarkedYAMLError) -> str:
    """YAML's own words, without anything that it quotes from the text."""
    text = re.sub(r"\s*'[^']*'", "", str(error.problem or error.context or "it breaks off here"))
    return re.sub(r"[^\x20-\x7e]", "?", text)[:120]


def _misindented(text: str, complaints: Complaints) -> Iterator[int]:
    """Certificates and keys below `|` that are not indented: the guide's own template."""
    lines = text.splitlines()
    for number, line in enumerate(lines, 1):
        opened = re.match(r"^(?P<dash>\s*(?:- +)*)(?:(?P<key>[\w-]+) *: *)?[|>][-+0-9]*\s*$", line)
        if opened is None or not (opened["key"] or "-" in opened["dash"]):
            continue
        following = next(
            ((at, item) for at, item in enumerate(lines[number:], number + 1) if item.strip()), None
        )
        if following is None or "-----BEGIN" not in following[1]:
            continue
        parent = len(opened["dash"]) if opened["key"] else opened["dash"].rindex("-")
        at, first = following
        indent = len(first) - len(first.lstrip())
        if indent > parent:
            continue
        last = _last_of_pem(lines, at)
        complaints.error(
            at,
            opened["key"] or "",
            f"the text below `{line.strip()}` is not indented",
            f"indent lines {at} to {last} by {parent + 2 - indent} more spaces, so that they begin"
            f" with {parent + 2}: `{' ' * (parent + 2)}{first.strip()}`",
        )
        yield at


def _last_of_pem(lines: list[str], first: int) -> int:
    for number in range(first, len(lines) + 1):
        if "-----END" in lines[number - 1]:
            return number
    return first


class _Converter:
    """PyYAML's nodes to entries, each node counted."""

    def __init__(self, complaints: Complaints) -> None:
        self._complaints = complaints
        self._scalars = yaml.constructor.SafeConstructor()
        self._open: set[int] = set()
        self._count = 0

    def entry(self, node: yaml.Node, key: str) -> Entry:
        """An entry for a node at a key path.

        Raises:
            ValueError: too many nodes, or one that holds itself.
        """
        self._count += 1
        if self._count > MAX_NODES or id(node) in self._open:
            raise ValueError(key)
        self._open.add(id(node))
        try:
            return self._of(node, key)
        finally:
            self._open.discard(id(node))

    def _of(self, node: yaml.Node, key: str) -> Entry:
        line, column = node.start_mark.line + 1, node.start_mark.column
        if isinstance(node, yaml.MappingNode):
            return Entry(line, column, items=self._items(node, key))
        if isinstance(node, yaml.SequenceNode):
            elements = tuple(
                self.entry(item, f"{key}[{position}]") for position, item in enumerate(node.value)
            )
            return Entry(line, column, elements=elements)
        return Entry(line, column, self._scalar(node))

    def _items(self, node: yaml.MappingNode, key: str) -> dict[str, Entry]:
        items: dict[str, Entry] = {}
        for name_node, value_node in node.value:
            name = str(name_node.value) if isinstance(name_node, yaml.ScalarNode) else "?"
            path = f"{key}.{name}" if key else name
            if name in items:
                self._complaints.error(
                    name_node.start_mark.line + 1, path, "this key stands twice", "remove one"
                )
            value = self.entry(value_node, path)
            items[name] = Entry(
                name_node.start_mark.line + 1,
                name_node.start_mark.column,
                value.value,
                value.items,
                value.elements,
            )
        return items

    def _scalar(self, node: yaml.Node) -> Any:
        try:
            value = self._scalars.construct_object(node)
        except yaml.YAMLError:
            return str(node.value)
        # A date or bytes is none of our types: what was written is.
        return value if isinstance(value, bool | int | float | str | None) else str(node.value)
