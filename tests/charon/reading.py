"""An operator's look at a VM: what has happened is read in status and log, and nothing else is."""

import json
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

from tests.charon.nodes import NO_ESP, Node, complaints, until
from tests.incidents import Incident, of_log, told
from tests.lab.guest import has_esp

WITHIN = 120.0
"""Seconds in which the cause is to be found, the time until it is told among them."""


def codes(node: Node) -> set[str]:
    """The codes of the problems that are read, without that of a kernel that has no ESP."""
    return complaints(node.status()) - expected()


def reads(
    node: Node,
    incident: Incident,
    beside: Collection[str] = (),
    *,
    since: int = 0,
    asking: Callable[[], object] = lambda: None,
) -> None:
    """Fail unless status and log lead to the cause in time, and to no other.

    Args:
        beside: codes of what is told, too.
        since: the letters of the log that are old.
        asking: done again and again meanwhile, as the VM's jobs do.
    """

    def there() -> bool:
        asking()
        problems = node.status().get("problems", ())
        return any(
            one["code"] == incident.code
            and all(word in one["message"] for word in incident.message)
            for one in problems
        )

    until(
        there,
        lambda: f"{incident}: {node.status().get('problems')} {node.log[-3000:]}",
        WITHIN,
        every=0.2,
    )
    lines = of_log(node.log[since:])
    told(incident, node.ask("status").stdout, lines)
    others = (codes(node) | alarms(lines)) - {incident.code, *beside}
    assert not others, f"{incident.code} and {others}: {node.log[-3000:]}"


def alarms(lines: Sequence[Mapping[str, Any]]) -> set[str]:
    """The codes of what was told since the agent was ready, or since its start where it is not."""
    began = max((place for place, one in enumerate(lines) if one["event"] == "ready"), default=0)
    return {
        one["code"]
        for one in lines[began:]
        if one["event"] == "problem" and one["level"] != "info" and one["code"] not in expected()
    }


def expected() -> set[str]:
    """What a kernel without ESP has told of each VM."""
    return set() if has_esp() else {NO_ESP}


def found(node: Node, code: str) -> list[tuple[str, str, str]]:
    """Severity, message and hint of each problem of this code that the status has."""
    return [
        (one["severity"], one["message"], one["hint"])
        for one in node.status().get("problems", ())
        if one["code"] == code
    ]


def tells(
    node: Node,
    code: str,
    severity: str,
    message: str,
    hint: str,
    *,
    asking: Callable[[], object] = lambda: None,
    steady: Callable[[str], str] = str,
) -> None:
    """Fail unless the status tells exactly this of a code in time, as text and as JSON.

    Args:
        asking: done again and again meanwhile.
        steady: makes one of what is said differently from moment to moment.
    """

    def told() -> bool:
        asking()
        said = [(level, steady(text), hint) for level, text, hint in found(node, code)]
        return said == [(severity, message, hint)] and shown()

    def shown() -> bool:
        lines = [steady(line) for line in node.ask("status").stdout.splitlines()]
        head = f"  {severity.upper()} {code}: {message}"
        return head in lines and lines[lines.index(head) + 1].endswith(f". {hint}")

    until(told, lambda: f"{found(node, code)}: {node.log[-2000:]}", WITHIN, every=0.2)


def ends(
    node: Node,
    code: str,
    asking: Callable[[], object] = lambda: None,
    *,
    within: float = WITHIN,
) -> None:
    """Fail unless a problem is over in so many seconds, in the log, too."""

    def over() -> bool:
        asking()
        return not found(node, code)

    until(over, lambda: f"{code} is over: {found(node, code)}", within, every=0.2)
    lines = [json.loads(line) for line in node.log.splitlines() if line.startswith("{")]
    assert [one for one in lines if one["event"] == "problem solved" and one["code"] == code]
