"""What a terminal puts around a config: words of the BOSH CLI, prompts, the fences of a web page.

`bosh runtime-config > FILE` of the guide writes "Acting as user …" into the file; what is copied
from a terminal has "Using environment …" above and "Succeeded" below. BOSH refuses such a file.
"""

import re
from collections.abc import Iterator, Sequence

from msgspec import Struct

from ipsec_agent.core.manifest.pem_indentation import lines_of

CLI = re.compile(
    r"Acting as (?:user|client)|Using (?:environment|deployment|director)|Succeeded(?=\s*$)"
    r"|Exit code|Target set to|Logged in as|Your username:|Enter password:|Task \d+"
    r"|Release has been created|Runtime config (?:has been )?updated|Continue\?|```"
    r"|(?i:deprecat\w*|warning|error)\b:? "
)
"""What the BOSH CLIs (1 and 2) and web pages write, at the begin of a line."""

PROMPT = re.compile(
    r"[\w.@:~/-]{0,80}\$(?: |$)|\[?[\w.-]{1,40}@[\w.-]{1,80}[: ][\w.~/-]{0,80}\]?#(?: |$)"
)
"""A shell's, such as `ubuntu@opsman:~$ `, or root's with `#`."""

PROSE = re.compile(r"[A-Za-z][^\s:]* (?=[^#])")
"""Two words, of which the first is no key."""

LONGEST = 200
"""Characters of a line that are looked at for a key."""

LIKE_YAML = re.compile(
    r"\s*(?:#|$)|---|%(?:YAML|TAG) |[\"']?[\w.<-][\w. <>/-]{0,60}[\"']? *:(?:\s|$)|-(?:\s|$)|[{&!]"
)
"""What a config may begin with: a comment, a document, a key, a list, a mapping in braces."""

END = re.compile(r"~~~|EOF\s*$|% |[-d][-rwxsStT]{9} ")
"""What else follows a config that was copied from a terminal or a page."""

CONFIG = re.compile(r" *[\"']?(?:releases|addons|ipsec|properties|agent|tags)[\"']? *:(?:\s|$)")
"""A line with which a config begins."""


COLOUR = re.compile(r"\x1b\[[0-9;]{0,20}[A-Za-z]|\x1b\(B")
"""An escape sequence of a terminal's."""


class Foreign(Struct, frozen=True):
    """Lines that are not of the config.

    Attributes:
        first: the first of them, 1-based.
        last: the last of them.
        said: the words by which they are known, "" where they are none of the CLI's.
    """

    first: int
    last: int
    said: str

    @property
    def message(self) -> str:
        """What is wrong."""
        what = f"`{self.said} …`, which the BOSH CLI says," if self.said else "this text"
        return f"{what} is not part of the config"

    @property
    def remedy(self) -> str:
        """What to do."""
        if self.first == self.last:
            return f"delete line {self.first}"
        return f"delete lines {self.first} to {self.last}"


def coloured(text: str) -> int:
    """The first line with an escape sequence of a terminal's, 0 without any."""
    found = COLOUR.search(text)
    return len(lines_of(text[: found.start()])) if found else 0


def without_colours(text: str) -> str:
    """The text without escape sequences."""
    return COLOUR.sub("", text)


def foreign(text: str) -> tuple[Foreign, ...]:
    """The lines above and below the config, of a text that is no YAML as a whole."""
    lines = lines_of(text)
    begin = next((at for at, line in enumerate(lines) if CONFIG.match(line)), None)
    if begin is None:
        return ()
    top = next((at for at in range(begin) if _is_of_config(lines[at])), begin)
    above = [
        at for at in range(begin) if _is_foreign(lines[at]) or (at < top and lines[at].strip())
    ]
    return tuple(_runs(lines, above)) + tuple(_runs(lines, _below(lines, begin)))


def without(text: str, blocks: Sequence[Foreign]) -> str:
    """The text with these lines empty; no line moves to another number."""
    lines = lines_of(text)
    for block in blocks:
        for at in range(block.first - 1, block.last):
            lines[at] = ""
    return "\n".join(lines)


def _below(lines: Sequence[str], begin: int) -> list[int]:
    """The last lines of the text, up to one that may be of the config."""
    found: list[int] = []
    for at in range(len(lines) - 1, begin, -1):
        if _is_foreign(lines[at]) or END.match(lines[at]):
            found.insert(0, at)
        elif lines[at].strip():
            break
    return found


def _is_foreign(line: str) -> bool:
    return any(kind.match(line) for kind in (CLI, PROMPT, PROSE))


def _is_of_config(line: str) -> bool:
    """Whether a line is something that a config may begin with."""
    return (
        not _is_foreign(line) and bool(line.strip()) and LIKE_YAML.match(line[:LONGEST]) is not None
    )


def _runs(lines: Sequence[str], found: Sequence[int]) -> Iterator[Foreign]:
    """Lines that follow one another, but for empty ones, as one."""
    start = 0
    for index, at in enumerate(found):
        following = found[index + 1] if index + 1 < len(found) else None
        if following is None or any(line.strip() for line in lines[at + 1 : following]):
            first = found[start]
            known = CLI.match(lines[first])
            yield Foreign(first + 1, at + 1, known[0].strip(":` ") if known else "")
            start = index + 1
