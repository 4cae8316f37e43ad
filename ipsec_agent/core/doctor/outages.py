"""Which peers were cut off, from when to when: the guide's split brains of a cluster begin so."""

from collections.abc import Iterable, Iterator
from typing import Any

from ipsec_agent.core.doctor.facts import Facts, Finding
from ipsec_agent.core.outages import Outage, read
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.words import duration, instant, several

SHOWN = 10
"""Outages that are told one by one."""


def outages(facts: Facts) -> Iterator[Finding]:
    """Something to know: what fails now is a problem of its own."""
    known = facts.outages
    if facts.status is not None:
        known = tuple(_of_status(facts.status.get("outages", ())))
    newest = sorted(known, key=lambda one: one.begin, reverse=True)
    for one in newest[:SHOWN]:
        lasts = facts.status is not None and not one.end
        command = f"ipsec-agent verify {one.peer}" if lasts else _log(one)
        yield Finding("outages", Severity.INFO, said(one), command)
    if len(newest) > SHOWN:
        yield Finding(
            "outages",
            Severity.INFO,
            f"{several(len(newest) - SHOWN, 'earlier outage')} of peers",
            "ipsec-agent status --json | jq .outages",
        )


def _of_status(documents: Iterable[Any]) -> Iterator[Outage]:
    """Those that are understood: an agent of another version may run, or one whose clock is odd."""
    for one in documents:
        try:
            yield from read((one,))
        except (ArithmeticError, LookupError, TypeError, ValueError):
            continue


def _log(one: Outage) -> str:
    return f"journalctl -u ipsec-agent -u ipsec-agent-charon --since '{instant(one.begin)}'"


def said(one: Outage) -> str:
    """One outage in words."""
    until = (
        f"until {instant(one.end)} ({duration(one.end - one.begin, 'h')})"
        if one.end
        else "and still is"
    )
    return f"{one.peer} was cut off from {instant(one.begin)} {until}: {one.reason}"
