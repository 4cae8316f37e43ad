"""`status --events`: what has happened, the newest last."""

from collections.abc import Iterable
from typing import Any

from ipsec_agent.core.words import instant, mentions
from ipsec_agent.verbs.status_text import shown

OF_PEER = 5
"""Events of a peer that `status PEER` shows."""


def text(status: dict[str, Any]) -> str:
    """All events for a person."""
    return shown(lines(status.get("events", ())) or ["no event yet"])


def lines(events: Iterable[dict[str, Any]]) -> list[str]:
    """One line for each event: when, of which kind, what, and how often."""
    return [
        f"{instant(one['time'])}  {one['kind']:14}  {one['text']}{_times(one)}" for one in events
    ]


def of_peer(status: dict[str, Any], peer: str) -> list[dict[str, Any]]:
    """The last events about a peer, or that name it."""
    return [
        one
        for one in status.get("events", ())
        if one["peer"] == peer or mentions(one["text"], peer)
    ][-OF_PEER:]


def as_json(status: dict[str, Any]) -> dict[str, Any]:
    """What `status --events --json` prints."""
    return {
        "schema": status["schema"],
        "time": status.get("time"),
        "events": status.get("events", []),
    }


def _times(one: dict[str, Any]) -> str:
    if one["count"] == 1:
        return ""
    return f" ({one['count']} times since {instant(one['since'])})"
