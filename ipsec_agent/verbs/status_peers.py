"""`status --peers`: one line for each peer, in columns that are as wide as what is in them."""

from collections.abc import Iterable, Sequence
from typing import Any

from ipsec_agent.core.sa_details import key_exchanges
from ipsec_agent.core.status_view import Condition, PeerView, peers
from ipsec_agent.core.words import duration, several, size
from ipsec_agent.verbs.status_text import shown

COLUMNS = ("PEER", "STATE", "AGE", "IN", "LAST IN", "OUT", "LAST OUT", "REKEY IN", "NOTES")

LEFT_OUT = ("REKEY IN", "AGE", "OUT", "IN", "LAST OUT", "LAST IN")
"""Which columns are left out on a narrow screen, the first first."""

OTHER_CERTIFICATE = {
    "old": "on the old certificate",
    "removed-ca": "of a CA that was removed",
}


def chosen(status: dict[str, Any], condition: str | None) -> tuple[PeerView, ...]:
    """The peers in a condition; all where none is asked for."""
    return tuple(one for one in peers(status) if condition in {None, one.condition})


def table(views: Sequence[PeerView], width: int = 0) -> str:
    """The peers as a table.

    Args:
        width: columns of the screen, 0 where nothing has to fit. Notes that do not fit go below
            their line; columns that do not are left out, and named.
    """
    if not views:
        return shown(["no peer"])
    rows = [COLUMNS, *map(_row, views)]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    left_out: list[str] = []
    kept = list(range(len(COLUMNS) - 1))
    while width and len(left_out) < len(LEFT_OUT) and _length(widths, kept) > width:
        left_out.append(LEFT_OUT[len(left_out)])
        kept.remove(COLUMNS.index(left_out[-1]))
    lines = []
    for row in rows:
        front = "  ".join(row[one].ljust(widths[one]) for one in kept)
        whole = f"{front}  {row[-1]}".rstrip()
        fits = not width or len(whole) <= width
        lines += [whole] if fits else [front.rstrip(), f"    {row[-1]}"]
    if left_out:
        lines.append(
            f"no room for: {', '.join(left_out)}; `ipsec-agent status PEER` has all"
            " of one peer, and --json of each"
        )
    return shown(lines)


def _length(widths: Sequence[int], kept: Sequence[int]) -> int:
    """Of a line with some columns, two blanks between two of them."""
    return sum(widths[one] + 2 for one in kept) - 2


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
        duration(peer["age"]),
        size(peer["bytes_in"]),
        ago(peer.get("idle_in")),
        size(peer["bytes_out"]),
        ago(peer.get("idle_out")),
        "-" if peer.get("rekey_in") is None else duration(peer["rekey_in"]),
        notes,
    )


def _notes(view: PeerView) -> Iterable[str]:
    """What is to be known beside the numbers."""
    peer = view.entry
    if view.clear_says:
        yield view.clear_says
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
        yield f"ends in {duration(peer['ends_in'])}"


def ago(seconds: float | None) -> str:
    """When the last packet passed."""
    return "-" if seconds is None else f"{duration(seconds)} ago"
