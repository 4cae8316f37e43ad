"""An operator's look at a VM: what has happened is read in status and log, and nothing else is."""

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
