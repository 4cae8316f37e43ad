"""What is wrong with a text that is no YAML, in an operator's words.

Nothing of the text is repeated: it could be a line of a key.
"""

import re
import unicodedata

import yaml

from ipsec_agent.core.manifest.pem_indentation import lines_of
from ipsec_agent.core.manifest.yaml_scanner import INDENTED_WITH_TAB

LOOKALIKE = re.compile(r"[^#]*?(?:[\u200b\u2060\ufeff]|[^\S\x00-\x20\x85\u2028\u2029])")
"""A line up to what looks like a space, or like nothing, and is neither to YAML."""

SECOND_DOCUMENT = (
    "a second document begins here",
    "keep only one of the two: what is above this line, or what is below it",
)
SIMPLE_KEY = "while scanning a simple key"
BEGUN = {SIMPLE_KEY, "while scanning a quoted scalar"}
"""What is found out far below the line that is wrong."""

KNOWN = (
    (
        SIMPLE_KEY,
        "not valid YAML: the line is neither `key: value` nor `- value`",
        "write a space after the colon or the dash, or indent the line below its key",
    ),
    (
        "undefined alias",
        "not valid YAML: no `&name` above belongs to this `*name`",
        "write out the value",
    ),
    ("'`'", "not valid YAML: a value cannot begin with `", 'write it in quotes: "…"'),
    ("'@'", "not valid YAML: a value cannot begin with @", 'write it in quotes: "…"'),
    ("'%'", "not valid YAML: a value cannot begin with %", 'write it in quotes: "…"'),
    ("'!'", "not valid YAML: a value cannot begin with !", 'write it in quotes: "…"'),
    (
        "'<stream end>'",
        "not valid YAML: a bracket or brace is not closed",
        "write `]` or `}` at the value's end",
    ),
    (
        "expected ',' or",
        "not valid YAML: a bracket or brace above is not closed, or a comma is missing",
        "write `]` or `}` at the value's end, and commas between values",
    ),
    (
        "expected <block end>",
        "not valid YAML: the line does not continue the list or mapping above it",
        "check the indentation of this line and those around it",
    ),
    (
        "expected the node content",
        "not valid YAML: a bracket, brace or comma is where a value should be",
        "write the value, in quotes where it begins so",
    ),
    (
        "expected '<document start>'",
        "not valid YAML: the line does not belong to what is above it",
        "compare its indentation with that of the first line, or delete what is not of the config",
    ),
    (
        "expected a comment or a line break",
        "not valid YAML: only a comment may follow `|` or `>`",
        "write the text in the lines below it, indented",
    ),
    (
        "expected alphabetic or numeric character",
        "not valid YAML: a value cannot begin with * or &",
        'write it in quotes: "…"',
    ),
    (
        "mapping values are not allowed here",
        "not valid YAML: a key with a colon cannot be here",
        "write a value that has `: ` in quotes, and check the indentation of this line",
    ),
    (
        "sequence entries are not allowed here",
        "not valid YAML: a dash cannot be here",
        "write a value that begins with a dash in quotes, or a list in the lines below its key",
    ),
    (
        "escape",
        "not valid YAML: a backslash in double quotes is not followed by what it may be",
        "write two backslashes, or single quotes in place of the double ones",
    ),
    (
        "document separator",
        "not valid YAML: a quote is not closed",
        "write the same quote at the value's end",
    ),
    (
        "second occurrence",
        "not valid YAML: the name behind `&` is above already",
        "write another name",
    ),
    (
        "unexpected end of stream",
        "not valid YAML: a quote is not closed",
        "write the same quote at the value's end",
    ),
)
"""A part of PyYAML's words, ours, and what to do."""

CONTEXTS = {
    "while scanning a block scalar": "expected a comment or a line break",
    SIMPLE_KEY: SIMPLE_KEY,
    "while scanning a directive": "'%'",
    "while scanning a tag": "'!'",
    "while parsing a tag": "'!'",
}
"""What is known by where PyYAML was."""


def explained(error: yaml.MarkedYAMLError) -> tuple[int, str, str]:
    """The line, 1-based and 0 where none is known; what is wrong; what to do."""
    mark = error.problem_mark or error.context_mark
    if error.context in BEGUN:
        mark = error.context_mark
    if mark is None or mark.buffer is None:
        return 0, *_known(str(error.problem or error.context))
    text = str(mark.buffer).rstrip("\0")
    lines = lines_of(text)[: mark.line + 1]
    problem = str(error.problem or error.context or "it ends too early")
    if "'\\t'" in problem or problem == INDENTED_WITH_TAB:
        return mark.line + 1, *_tab(lines[-1][: mark.column], lines[-1][mark.column :])
    odd = [(at, found[0]) for at, line in enumerate(lines) if (found := LOOKALIKE.match(line))]
    if odd:
        at, letter = odd[-1]
        name = unicodedata.name(letter[-1], "without a name").lower()
        message = f"not valid YAML: it contains a character that only looks like a space ({name})"
        return at + 1, message, "write a space in its place"
    return mark.line + 1, *_known(CONTEXTS.get(str(error.context), problem))


def _known(problem: str) -> tuple[str, str]:
    """What is wrong and what to do, of PyYAML's words."""
    for part, message, remedy in KNOWN:
        if part in problem:
            return message, remedy
    plain = re.sub(r"[^\x20-\x7e]", "?", re.sub(r"\s*'[^']*'?", "", problem))[:120]
    return f"not valid YAML: {plain}", "check the indentation of this line and those around it"


def _tab(before: str, after: str) -> tuple[str, str]:
    """Why a tab cannot be there."""
    if before.strip():
        return "not valid YAML: a tab follows the dash", "write a space in place of the tab"
    if not after.strip():
        return "not valid YAML: the line is empty but for a tab", "delete the line"
    return "not valid YAML: the line is indented with a tab", "use spaces"


def forbidden(text: str, error: yaml.reader.ReaderError) -> tuple[int, str, str]:
    """The same for a character that YAML does not allow at all."""
    line = len(lines_of(text[: error.position]))
    return (
        line,
        "not valid YAML: it contains a forbidden character",
        f"remove the character with code {error.character}",
    )
