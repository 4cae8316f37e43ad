"""Certificates and keys below `|` that are not indented: the guide's own template.

YAML's own error does not help there. This gives the lines and the indentation that
they need; a line of a private key is never shown.
"""

import re
from collections.abc import Sequence

from msgspec import Struct

from ipsec_agent.core.manifest.complaint import shown_key
from ipsec_agent.core.terse import Terse
from ipsec_agent.core.words import several

OPENED = re.compile(
    r"(?P<dash> *(?:- +)*)(?:[\"']?(?P<key>[A-Za-z_][\w.-]{0,60})[\"']? *:)?"
    r"(?P<style> *[|>][-+]?)? *(?:#.*)?"
)
BEGIN = re.compile(r"-----BEGIN [A-Z0-9 ]{1,40}-----")
LONGEST_OPENER = 200
"""Characters; the patterns are slow on very long lines."""

MOST_BLOCKS = 100
"""Complained of; a config has three or four."""

MOST_ABOVE = 200
"""Lines of text above a PEM; `openssl x509 -text` writes 50 to 100."""

NEXT_VALUE = re.compile(r"\s*(?:- +)*(?:[a-z_]+ *:(?:\s|$)|- *[|>])")


class Misplaced(Struct, frozen=True):
    """Lines of a certificate or a key that YAML does not read as one string.

    Attributes:
        key: the key above it, "" for an item of a list.
        opener: line of that key or dash, 1-based.
        first: first line of the text, 1-based.
        last: last line of the text.
        column: where its lines should begin, 0-based.
        message: what is wrong.
        remedy: what to do.
    """

    key: str
    opener: int
    first: int
    last: int
    column: int
    message: str
    remedy: str


def misplaced(text: str) -> tuple[Misplaced, ...]:
    """Every certificate and key whose lines are not indented as they must be."""
    lines = lines_of(text)
    found: list[Misplaced] = []
    number = 0
    while number < len(lines) and len(found) < MOST_BLOCKS:
        block = _below(lines, number)
        if block is not None:
            found.append(block)
        number = block.last if block else number + 1
    return tuple(found)


def indented(text: str, blocks: Sequence[Misplaced]) -> str:
    """The text with these lines where they belong; no line moves to another number."""
    lines = lines_of(text)
    for block in blocks:
        opener = lines[block.opener - 1].partition("#")[0].rstrip()
        lines[block.opener - 1] = opener if opener.endswith(("|", ">", "-", "+")) else f"{opener} |"
        for at in range(block.first - 1, block.last):
            lines[at] = " " * block.column + lines[at].strip()
    return "\n".join(lines) + "\n"


def lines_of(text: str) -> list[str]:
    """A text's lines, as YAML counts them."""
    return re.split(r"\r\n|[\n\r\x85\u2028\u2029]", text)


def _below(lines: list[str], opener: int) -> Misplaced | None:
    opened = OPENED.fullmatch(lines[opener]) if len(lines[opener]) <= LONGEST_OPENER else None
    if opened is None or not (opened["key"] or (opened["style"] and "-" in opened["dash"])):
        return None
    first = opener + 1
    while first < len(lines) and not lines[first].strip():
        first += 1
    at = _begin(lines, first, text_above=opened["style"] is not None)
    begin = BEGIN.search(lines[at]) if at < len(lines) else None
    # In quotes it may be written on many lines; behind a key of its own it is that one's.
    if begin is None or _next_value(lines[at]) or lines[at][: begin.start()].endswith(("'", '"')):
        return None
    last = _last(lines, at)
    parent = len(opened["dash"]) if opened["key"] else opened["dash"].rindex("-")
    fits = _fits if opened["style"] else _plain
    if fits(lines[first : last + 1], parent):
        return None
    key = shown_key(opened["key"]) if opened["key"] else ""
    head = f"{key}:" if key else "-"
    block = _Block(head, first + 1, lines[first : last + 1], parent + 2, begin[0])
    message, remedy = block.unindented() if opened["style"] else block.without_style()
    return Misplaced(key, opener + 1, first + 1, last + 1, parent + 2, message, remedy)


def _begin(lines: list[str], first: int, *, text_above: bool) -> int:
    """The line where the PEM begins, below the text that openssl writes above it, if any."""
    at = first
    if text_above:
        most = min(first + MOST_ABOVE, len(lines))
        while at < most and not BEGIN.search(lines[at]) and not _next_value(lines[at]):
            at += 1
    return at


class _Block(Terse, frozen=True):
    """The lines below a key or dash, and the words about them.

    Attributes:
        head: the key with its colon, or the dash.
        first: number of the first line.
        begin: the BEGIN marker, which is no secret.
    """

    unshown = ("lines",)

    head: str
    first: int
    lines: list[str]
    column: int
    begin: str

    @property
    def where(self) -> str:
        return f"lines {self.first} to {self.first + len(self.lines) - 1}"

    @property
    def corrected(self) -> str:
        return f"`{' ' * self.column}{self.begin}`"

    def _begin_with(self, what: str) -> str:
        return f"start each of {self.where} with {self.column} {what}: {self.corrected}"

    def without_style(self) -> tuple[str, str]:
        """The message and the remedy where `|` is missing."""
        return (
            f"`|` is missing after `{self.head}`",
            f"write `{self.head} |`, and {self._begin_with('spaces')}",
        )

    def unindented(self) -> tuple[str, str]:
        """The message and the remedy where the lines are not indented enough."""
        indents = {_indent(line) for line in self.lines if line.strip()}
        message = f"the text below `{self.head} |` is not indented"
        if len(indents) > 1 or -1 in indents:
            return (
                f"{message} by the same number of spaces in each line",
                self._begin_with("spaces, not a tab"),
            )
        more = self.column - indents.pop()
        least = self.column - 1
        return (
            f"{message}: it needs at least {several(least, 'space')}",
            f"indent {self.where} by {more} more: {self.corrected}",
        )


def _last(lines: list[str], first: int) -> int:
    """The last line of the PEM blocks that begin here, one below the other."""
    last, inside = first, False
    for at in range(first, len(lines)):
        line = lines[at]
        if BEGIN.search(line):
            inside = True
        elif line.strip() and (not inside or _next_value(line)):
            break
        if inside and line.strip():
            last = at
        if "-----END " in line:
            inside = False
    return last


def _next_value(line: str) -> bool:
    return NEXT_VALUE.match(line[:LONGEST_OPENER]) is not None


def _fits(block: list[str], parent: int) -> bool:
    """Whether YAML takes the lines as one text: none is further left than the first."""
    indents = [_indent(line) for line in block if line.strip()]
    return indents[0] > parent and min(indents) >= indents[0]


def _plain(block: list[str], parent: int) -> bool:
    """Whether YAML takes the lines without `|`: as a list, in quotes, or as a text by itself."""
    if not BEGIN.match(block[0].lstrip()):
        return True
    return min(_indent(line) for line in block if line.strip()) > parent


def _indent(line: str) -> int:
    """Leading spaces; -1 where a tab is among them."""
    leading = line[: len(line) - len(line.lstrip())]
    return -1 if "\t" in leading else len(leading)
