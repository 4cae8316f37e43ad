"""`status --peers`: one line for each peer, in columns that are as wide as what is in them."""

from collections.abc import Iterable, Sequence
from typing import Any

from ipsec_agent.core.sa_details import key_exchanges
from ipsec_agent.core.status_view import Condition, PeerView, peers
from ipsec_agent.core.words import several, size, span
from ipsec_agent.verbs.status_text import shown

COLUMNS = ("PEER", "STATE", "AGE", "IN", "LAST IN", "OUT", "LAST OUT", "REKEY IN", "NOTES")

OTHER_CERTIFICATE = {
    "old": "on the old certificate",
    "removed-ca": "of a CA that was removed",
}


def chosen(status: dict[str, Any], condition: str | None) -> tuple[PeerView, ...]:
    """The peers in a condition; all where none is asked for."""
    return tuple(one for one in peers(status) if condition in {None, one.condition})


def table(views: Sequence[PeerView]) -> str:
    """The peers as a table, and how many they are."""
    rows = [COLUMNS, *map(_row, views)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = [
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
        for row in rows
    ]
    return shown(lines if views else ["no peer"])


def as_json(status: dict[str, Any], views: Iterable[PeerView]) -> dict[str, Any]:
    """What `status --peers --json` prints."""
    entries = [{"address": one.address, "condition": one.condition, **one.entry} for one in views]
    return {"schema": status["schema"], "time": status.get("time"), "peers": entries}


def _row(view: PeerView) -> tuple[str, ...]:
    peer = view.entry
    notes = ", ".join(_notes(view))
    if not peer.get("child_sas") and not peer.get("packets_in", 0) + peer.get("packets_out", 0):
        return view.address, view.condition.value, *["-"] * 6, notes
    return (
        view.address,
        view.condition.value,
        span(peer["age"]),
        size(peer["bytes_in"]),
        ago(peer.get("idle_in")),
        size(peer["bytes_out"]),
        ago(peer.get("idle_out")),
        "-" if peer.get("rekey_in") is None else span(peer["rekey_in"]),
        notes,
    )


def _notes(view: PeerView) -> Iterable[str]:
    """What is to be known beside the numbers."""
    peer = view.entry
    if view.clear:
        yield view.clear.says
    if not peer.get("child_sas"):
        yield f"IKE only ({peer['state']}), no SA" if peer.get("ike_sas") else "no SA"
    if peer.get("problem"):
        yield peer["problem"]
    exchanges = key_exchanges(peer.get("ike_algorithms", ""))
    if view.condition is Condition.UP and len(exchanges) > 1:
        yield " + ".join(exchanges)
    if peer.get("duplicates"):
        yield several(peer["duplicates"], "duplicate")
    if peer.get("one_way"):
        yield f"ONE WAY ({peer['one_way']} only)"
    if says := OTHER_CERTIFICATE.get(peer.get("certificate_state", "")):
        yield says
    if peer.get("ends_in") is not None:
        yield f"ends in {span(peer['ends_in'])}"


def ago(seconds: float | None) -> str:
    """When the last packet passed."""
    return "-" if seconds is None else f"{span(seconds)} ago"
