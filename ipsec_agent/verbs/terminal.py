"""How a text is shown: as it is where it is piped; on a terminal it fits and has colours."""

import enum
import os
import re
import shutil
import sys
import textwrap

from msgspec import Struct

from ipsec_agent.core.words import LINES, printable, several

RED, GREEN, YELLOW, BOLD, PLAIN = (f"\x1b[{code}m" for code in (31, 32, 33, 1, 0))

NARROWEST = 40
"""Columns below which no text is made to fit."""

STYLES = (
    (re.compile(r"ipsec-agent \S*: .*, healthy"), GREEN),
    (re.compile(r"ipsec-agent \S*: .*NOT HEALTHY"), RED),
    (re.compile(r"  (CRITICAL|ERROR) |guard +(DOWN|ALTERED|CLOSED)|  .* NOT IN THE KERNEL$"), RED),
    (re.compile(r"  WARNING "), YELLOW),
    (re.compile(r"[0-9a-fA-F.:]+ +(clear|refused|silent)\b"), RED),
    (re.compile(r"[0-9a-fA-F.:]+ +(connecting|unknown|orphan)\b"), YELLOW),
    (re.compile(r"[A-Z][A-Z ]+$"), BOLD),
)
"""What a line begins with, and its colour."""

COMMAND = re.compile(r"`[^`]*`")
BLANK = "\x00"
"""For a blank within a command, which stays on one line: it may be copied."""


class Screen(Struct, frozen=True):
    """Where a text is shown.

    Attributes:
        width: columns, 0 where nothing has to fit.
    """

    width: int = 0
    colour: bool = False

    @property
    def fits(self) -> int:
        """Columns within which a text is made to fit, 0 where it is not."""
        return self.width if self.width >= NARROWEST else 0


def screen() -> Screen:
    """What standard output is (no-color.org has NO_COLOR)."""
    if not sys.stdout.isatty():
        return Screen()
    plain = bool(os.environ.get("NO_COLOR")) or os.environ.get("TERM", "dumb") == "dumb"
    return Screen(columns(), not plain)


def columns() -> int:
    """How wide the terminal is."""
    return shutil.get_terminal_size().columns


class Part(enum.Enum):
    """What of a text is shown that does not fit the terminal's height."""

    ALL = enum.auto()
    FIRST = enum.auto()
    LAST = enum.auto()


def show(text: str, part: Part = Part.ALL) -> None:
    """Write a text to standard output, each line wrapped at the terminal's width."""
    shown = fitted(printable(text, kept=LINES), screen())
    sys.stdout.write(a_screen(shown, rows(), part) if sys.stdout.isatty() else shown)


def rows() -> int:
    """How high the terminal is."""
    return shutil.get_terminal_size().lines


def a_screen(text: str, height: int, part: Part) -> str:
    """A part of a text, and how much is left out, in so many lines with that of the cursor."""
    lines = text.splitlines(keepends=True)
    kept = max(height - 2, 1)
    if part is Part.ALL or len(lines) <= kept + 1:
        return text
    told = f"({several(len(lines) - kept, 'more line')}; without --watch all are shown)\n"
    return "".join([*lines[:kept], told] if part is Part.FIRST else [told, *lines[-kept:]])


def fitted(text: str, on: Screen) -> str:
    """A text, each line wrapped between words at the screen's width, and coloured."""
    return "".join(
        f"{_coloured(part, line, on)}\n"
        for line in text.splitlines()
        for part in _wrapped(line, on)
    )


def cut(line: str, width: int) -> str:
    """A line of so many columns at the most."""
    return line if len(line) <= width else f"{line[: width - 1]}…"


def _wrapped(line: str, on: Screen) -> list[str]:
    if not on.fits or len(line) <= on.width:
        return [line]
    held = COMMAND.sub(lambda found: found[0].replace(" ", BLANK), line)
    indent = " " * (len(line) - len(line.lstrip()) + 2)
    parts = textwrap.wrap(
        held,
        on.width,
        subsequent_indent=indent,
        break_long_words=False,
        break_on_hyphens=False,
    )
    return [part.replace(BLANK, " ") for part in parts]


def _coloured(part: str, line: str, on: Screen) -> str:
    """A part of a line in the line's colour."""
    style = next((style for begins, style in STYLES if begins.match(line)), "") if on.colour else ""
    return f"{style}{part}{PLAIN}" if style else part
