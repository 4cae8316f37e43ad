"""docs/log.md: every event that the agent logs, compared with the code."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.log import PRIORITIES
from tests.test_docs import page

PACKAGE = Path(__file__).parents[1] / "ipsec_agent"
LEVELS = {one.value for one in Severity} | {"debug", "exception"}
OF_PROBLEMS = "that of the problem"
Event = tuple[str, str, frozenset[str]]
"""Its name, its level, and its fields."""


def is_log(node: ast.expr) -> bool:
    """Whether it is a logger of structlog's."""
    text = ast.unparse(node)
    return text.endswith("_log") or text.startswith("structlog.get_logger(")


def logged(tree: ast.Module) -> Iterator[Event]:
    """What a module logs; the name of each event is written there."""
    for node in ast.walk(tree):
        if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Attribute):
            continue
        fields = frozenset(str(one.arg) for one in node.keywords)
        if node.func.attr in LEVELS and is_log(node.func.value):
            (event,) = node.args
            assert isinstance(event, ast.Constant), f"not a stable name: {ast.unparse(node)}"
            yield str(event.value), node.func.attr, fields
        elif node.func.attr == "_log_at":
            level, event, _ = node.args
            assert isinstance(event, ast.Constant)
            info = ast.unparse(level) == "Severity.INFO"
            fixed = {"code", "subject", "message"}
            yield str(event.value), "info" if info else OF_PROBLEMS, fields | fixed


def made() -> dict[str, tuple[set[str], set[str]]]:
    """The levels and fields of each event in the code."""
    found: dict[str, tuple[set[str], set[str]]] = {}
    texts = (path.read_text() for path in PACKAGE.rglob("*.py"))
    for text in texts:
        if "get_logger" not in text:
            continue
        for event, level, fields in logged(ast.parse(text)):
            levels, all_fields = found.setdefault(event, (set(), set()))
            levels.add(level)
            all_fields |= fields
    return found


def told() -> dict[str, tuple[set[str], set[str]]]:
    """Those of docs/log.md."""
    _, _, below = page("log.md").partition("## Events\n")
    found = {}
    for row in re.findall(r"^\| `.*$", below, re.MULTILINE):
        event, level, fields, _ = (cell.strip() for cell in row.strip("|").split("|"))
        levels = set(re.findall(r"`(\w+)`", level)) or {level}
        found[event.strip("`")] = levels, set(re.findall(r"`(\w+)`", fields))
    return found


def test_every_event_has_its_row() -> None:
    """With its levels and its fields, and there is no other."""
    found = made()

    assert {"problem", "pass", "drain"} <= found.keys()
    assert told() == found


def test_every_level_has_its_priority() -> None:
    """As syslog has them."""
    rows = re.findall(r"^\| `(\w+)` \| (\d) \|", page("log.md"), re.MULTILINE)

    assert {level: int(number) for level, number in rows} == {
        level: number for level, number in PRIORITIES.items() if level != "debug"
    }
