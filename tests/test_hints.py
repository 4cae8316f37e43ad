"""Commands of ours that messages, hints and docs name exist, with each of their options."""

import ast
import contextlib
import functools
import io
import re
import shlex
from collections.abc import Iterator
from pathlib import Path

from ipsec_agent.cli import VERBS, parser
from tests.data_files import ROOT

QUOTED = re.compile(rf"`(ipsec-agent [a-z][^`]*|(?:{'|'.join(VERBS)}) [^`]*)`")
"""In backquotes: `ipsec-agent guard up`, and short, `guard up`."""

EVENTS = re.compile(r"^\| (`{1,2}).+?\1 \|", re.MULTILINE)
"""The first column of a table, which in docs/log.md has names of events."""

LINES = re.compile(r"^ {4,}(ipsec-agent [a-z].*?)(?: {2,}#.*| \|.*)?$", re.MULTILINE)
"""Indented lines of the docs."""


FILLED_IN = re.compile(r"\bPEER\b…?|(?<=--address )(?:A|IP)\b|(?<=--to )(?:B|IP)\b")
"""What stands for an address."""


def texts(path: Path) -> Iterator[str]:
    """The strings of a module, without docstrings; what is filled in is `1.2.3.4`."""
    nodes = list(ast.walk(ast.parse(path.read_text())))
    documented = {
        id(node.value)
        for node in nodes
        if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
    }
    for node in nodes:
        if isinstance(node, ast.JoinedStr):
            yield "".join(
                str(part.value) if isinstance(part, ast.Constant) else "1.2.3.4"
                for part in node.values
            )
        elif isinstance(node, ast.Constant) and id(node) not in documented:
            yield str(node.value)


@functools.cache
def commands() -> frozenset[tuple[str, str]]:
    """Each command and where it is named."""
    return frozenset(_commands())


def _commands() -> Iterator[tuple[str, str]]:
    for path in sorted((ROOT / "ipsec_agent").rglob("*.py")):
        for text in texts(path):
            for command in QUOTED.findall(text):
                yield str(path.relative_to(ROOT)), command
    for path in (ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))):
        text = EVENTS.sub("", path.read_text()) if path.name == "log.md" else path.read_text()
        for found in (*QUOTED.findall(text), *LINES.findall(text)):
            yield path.name, found


def refusal(command: str) -> str:
    """What the command line says of a command, "" where it takes it.

    What may be left out is taken as written; of several commands ours are looked at.
    """
    said = io.StringIO()
    # B stands for one of several words, which the command line knows.
    written = re.sub(r"[][]", "", command).replace("--baseline B", "--baseline cnsa2")
    written = FILLED_IN.sub("10.0.1.9", written).replace("--timeout 1.2.3.4", "--timeout 9")
    for part in written.split("&&"):
        words = shlex.split(part, comments=True)
        if words[0] in {"ipsec-agent", *VERBS}:
            with contextlib.redirect_stderr(said), contextlib.suppress(SystemExit):
                parser().parse_args(words[words[0] == "ipsec-agent" :])
    # A sentence may name a command without what it is given.
    return "" if "arguments are required" in said.getvalue() else said.getvalue()


def test_they_exist() -> None:
    """An operator may type each as it is written."""
    refused = {(place, command): refusal(command) for place, command in commands()}

    assert {named: said for named, said in refused.items() if said} == {}


def test_enough_are_found() -> None:
    """The walk finds those of hints, and would refuse what is not there."""
    found = {command for place, command in commands() if place.startswith("ipsec_agent/")}

    assert {"ipsec-agent guard up", "ipsec-agent status", "ipsec-agent run --force"} <= found
    assert "unrecognized arguments: --forced" in refusal("ipsec-agent run --forced")
    assert "invalid choice: 'docter'" in refusal("ipsec-agent check && ipsec-agent docter")
