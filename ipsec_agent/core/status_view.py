"""What `status` says of peers: one word for how each is, and how many are so, from the document."""

import enum
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from ipaddress import ip_address
from typing import Any

from msgspec import Struct

from ipsec_agent.core.model import address_order
from ipsec_agent.core.words import duration

FRESH = 600.0
"""Seconds for which a clear packet may say how a peer is, where nothing newer is known."""

AT_ONCE = 60.0
"""Seconds for which it does so whatever else is seen: a peer may do both all the time. Only its
first SA ends that sooner."""

MOST_NAMED = 3
"""Peers without ESP that the summary names."""


class Condition(enum.StrEnum):
    """How a peer is, the worst first."""

    CLEAR = "clear"
    REFUSED = "refused"
    SILENT = "silent"
    CONNECTING = "connecting"
    UNKNOWN = "unknown"
    ORPHAN = "orphan"
    UP = "up"
    GONE = "gone"


BY_ESP = frozenset({Condition.UP, Condition.ORPHAN, Condition.UNKNOWN})
ALWAYS_COUNTED = (Condition.UP, Condition.CONNECTING, Condition.REFUSED)
"""What is said of them even where it is 0."""

_STATES = {
    "installed": Condition.UP,
    "orphan": Condition.ORPHAN,
    "unknown": Condition.UNKNOWN,
    "refused": Condition.REFUSED,
    "silent": Condition.SILENT,
    "gone": Condition.GONE,
}
_CODES = {"": Condition.CONNECTING, "peer-silent": Condition.SILENT, "peer-gone": Condition.GONE}


class Clear(Struct, frozen=True):
    """Clear packets of a peer.

    Attributes:
        idle: seconds since the last one.
        way: `in`, `out` or `both`.
    """

    idle: float
    way: str

    @property
    def says(self) -> str:
        """What the peer does, or what happens to it."""
        does = "is sent clear packets" if self.way == "out" else "sends clear"
        return f"{does} ({duration(self.idle)} ago)"

    @property
    def said(self) -> str:
        """The same of what is past."""
        did = "was sent clear packets" if self.way == "out" else "sent clear"
        return f"{did} {duration(self.idle)} ago"


class PeerView(Struct, frozen=True):
    """A peer as `status` shows it.

    Attributes:
        entry: what the document says of it; {} where only clear packets are known of it.
        clear: its clear packets, None where there are none since its first SA.
    """

    address: str
    condition: Condition
    entry: dict[str, Any]
    clear: Clear | None = None

    @property
    def clear_says(self) -> str:
        """What is to be said of its clear packets; "" where there is nothing."""
        if self.clear is None:
            return ""
        return self.clear.says if self.condition is Condition.CLEAR else self.clear.said

    @property
    def says(self) -> str:
        """The address, and how the peer is."""
        if self.clear and self.condition is Condition.CLEAR:
            return f"{self.address} {self.clear.says}"
        return f"{self.address} {_SAYS.get(self.condition, self.condition.value)}"


_SAYS = {
    Condition.REFUSED: "is refused",
    Condition.SILENT: "is silent",
    Condition.CONNECTING: "is connecting",
}


def peers(status: Mapping[str, Any]) -> tuple[PeerView, ...]:
    """Every peer of a status document, by address; clear packets make one known, too."""
    clear = _clear(status)
    entries = {one["address"]: one for one in status.get("peers", ())}
    addresses = list(entries)
    if new := clear.keys() - entries.keys():
        addresses = sorted((*addresses, *new), key=lambda one: address_order(ip_address(one)))
    return tuple(_view(one, entries.get(one, {}), clear.get(one)) for one in addresses)


def _view(address: str, entry: dict[str, Any], clear: Clear | None) -> PeerView:
    if clear is not None and entry.get("child_sas") and clear.idle >= entry["age"]:
        clear = None
    if clear is not None and (clear.idle <= AT_ONCE or clear.idle < _newest(entry)):
        return PeerView(address, Condition.CLEAR, entry, clear)
    condition = _STATES.get(entry.get("state", ""))
    if condition is None:
        # Of an IKE_SA without a CHILD_SA.
        condition = _CODES.get(entry.get("problem", ""), Condition.REFUSED)
    return PeerView(address, condition, entry, clear)


def _newest(entry: Mapping[str, Any]) -> float:
    """Seconds since the newest sign that the peer does IPsec: an SA, ESP, a refusal.

    That it is silent is none: a peer that only speaks clear answers no IKE.
    """
    signs = [entry.get("handshake"), entry.get("idle_in")]
    if entry.get("problem", "") not in _CODES:
        signs.append(entry.get("problem_age"))
    return min((float(one) for one in signs if one is not None), default=math.inf)


def _clear(status: Mapping[str, Any]) -> dict[str, Clear]:
    """With whom packets pass, or would pass, in clear, by address."""
    found: dict[str, Clear] = {}
    for one in (status.get("guard") or {}).get("clear_in", ()):
        if one["idle"] <= FRESH:
            found[one["address"]] = Clear(one["idle"], "in")
    for one in (status.get("optional") or {}).get("would_cut_off", ()):
        idle = max(status.get("time", one["last"]) - one["last"], 0.0)
        found[one["address"]] = Clear(idle, one["way"])
    return found


def worst_first(views: Iterable[PeerView]) -> list[PeerView]:
    """The same by condition; those of one condition stay in their order."""
    ranks = {condition: rank for rank, condition in enumerate(Condition)}
    return sorted(views, key=lambda one: ranks[one.condition])


def summary(views: Iterable[PeerView]) -> tuple[str, str]:
    """How many travel by ESP, and who does not; how many are in each condition."""
    views = tuple(views)
    counted = Counter(one.condition for one in views)
    by_esp = sum(counted[one] for one in BY_ESP)
    others = [one for one in views if one.condition not in BY_ESP | {Condition.GONE}]
    first = f"{by_esp} by ESP"
    if others:
        more = f" and {rest} more" if (rest := len(others) - MOST_NAMED) > 0 else ""
        named = ", ".join(one.says for one in worst_first(others)[:MOST_NAMED])
        first += f", {len(others)} not: {named}{more}"
    said = (*ALWAYS_COUNTED, *(one for one in Condition if one not in ALWAYS_COUNTED))
    shown = (one for one in said if one in ALWAYS_COUNTED or counted[one])
    return first, ", ".join(f"{counted[one]} {one.value}" for one in shown)
