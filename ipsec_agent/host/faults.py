"""The faults with peers, in a file for the agent that comes after this one."""

import contextlib
import json
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ipsec_agent.core.charon_log import HINTS
from ipsec_agent.core.problems.charon import PEER_CODES, SILENT
from ipsec_agent.core.problems.kept_faults import KEPT, Written, gist, is_due, resumed
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Memory, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import write_whole
from ipsec_agent.host.understood import NOT_UNDERSTOOD

LARGEST = 1 << 24
"""Bytes that are read; all that is written is less."""

LONGEST = 300
"""Characters of a line of charon's log that are written."""

LATEST = 1e11
"""Seconds since the epoch of the latest time that is taken for one: in 3,000 years."""


class FaultFile:
    """The file, of which a part that cannot be read costs only what it would have said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = Written()

    def read(self) -> Memory:
        """What an earlier agent knew, as of now."""
        written, memory = _read(self._path)
        self._written = Written(gist(memory))
        return resumed(memory, written, time.time())

    def keep(self, memory: Memory, *, at_once: bool = False) -> None:
        """Write it again where something is new.

        Args:
            at_once: also shortly after the last time.
        """
        now = time.time()
        before = Written(self._written.gist) if at_once else self._written
        if not is_due(memory, before, now):
            return
        peers = [_document(one) for one in memory[:KEPT]]
        # As with the peers: a full disk must not stop IPsec. It is tried again.
        try:
            write_whole(self._path, json.dumps({"written": now, "peers": peers}) + "\n", mode=0o600)
        except AgentError:
            self._written = replace(self._written, time=now)
        else:
            self._written = Written(gist(memory), now)


def _document(one: Suspect) -> dict[str, Any]:
    return {
        "peer": one.peer,
        "heard": [one.heard.answered, one.heard.farewell, one.heard.succeeded],
        "tried": one.heard.tried,
        "seen": one.seen,
        "unanswered": one.unanswered,
        "watched": one.watched,
        "faults": [
            [fault.line.code, fault.line.text[:LONGEST], fault.line.time, fault.first]
            for fault in one.faults
        ],
    }


def _read(path: Path) -> tuple[float, Memory]:
    """When it was written, and what it says."""
    found: list[Suspect] = []
    if not path.is_file():
        # A FIFO would be waited for.
        return 0.0, ()
    try:
        with path.open("rb") as file:
            document = json.loads(file.read(LARGEST))
        written, peers = _time(document["written"]), document["peers"][:KEPT]
        for peer in peers:
            with contextlib.suppress(*NOT_UNDERSTOOD):
                found.append(_suspect(peer))
    except (OSError, *NOT_UNDERSTOOD):
        return 0.0, ()
    return written, tuple(found)


def _suspect(document: dict[str, Any]) -> Suspect:
    """What one entry says.

    Raises:
        ValueError: or another of NOT_UNDERSTOOD: it is none of ours.
    """
    peer = str(ip_address(document["peer"]))
    faults = tuple(_fault(peer, *one) for one in document["faults"])
    if not faults or "%" in peer:
        raise ValueError(peer)
    answered, farewell, succeeded = map(_time, document["heard"])
    return Suspect(
        peer,
        faults,
        Hearing(answered, farewell, succeeded, _time(document.get("tried", 0.0))),
        *(_time(document[name]) for name in ("seen", "unanswered", "watched")),
    )


def _fault(peer: str, code: str, text: str, last: float, first: float) -> Fault:
    if code not in PEER_CODES | {SILENT}:
        raise ValueError(code)
    # Half a surrogate pair can be shown nowhere.
    text.encode()
    return Fault(LogLine(code, text[:LONGEST], peer, HINTS[code], _time(last)), _time(first))


def _time(value: float) -> float:
    """A time that can be shown.

    Raises:
        ValueError: it cannot.
        TypeError: likewise.
    """
    if not 0 <= value < LATEST:
        raise ValueError(value)
    return float(value)
