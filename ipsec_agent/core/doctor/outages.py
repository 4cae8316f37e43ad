"""Which peers were cut off, from when to when: the guide's split brains of a cluster begin so."""

from collections.abc import Iterable, Iterator
from typing import Any

from ipsec_agent.core.doctor.agent import of_bosh
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
        command = f"ipsec-agent verify {one.peer}" if lasts else _log(one, facts)
        yield Finding("outages", Severity.INFO, said(one, lasts=lasts), command)
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


def _log(one: Outage, facts: Facts) -> str:
    """What shows the agent's log of it."""
    if of_bosh(facts):
        return f"grep {one.peer} /var/vcap/sys/log/ipsec/agent.log"
    if facts.units is None:
        return f"grep {one.peer} /var/log/ipsec-agent/agent.log"
    return f"journalctl -u ipsec-agent -u ipsec-agent-charon --since '{instant(one.begin)}'"


def said(one: Outage, *, lasts: bool) -> str:
    """One outage in words.

    Args:
        lasts: a running agent says that the peer is cut off now.
    """
    begin = instant(one.begin)
    if lasts:
        return f"{one.peer} has been cut off since {begin}: {one.reason}"
    if not one.end:
        # Nobody looks: it may be over.
        return f"{one.peer} was cut off from {begin} until the agent ended: {one.reason}"
    lasted = duration(one.end - one.begin, "h")
    return f"{one.peer} was cut off from {begin} until {instant(one.end)} ({lasted}): {one.reason}"
