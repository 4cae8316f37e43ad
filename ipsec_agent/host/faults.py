"""What is known of peers, in a file for the agent that comes after this one."""

import contextlib
import json
import time
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from ipsec_agent.core.charon_log import HINTS
from ipsec_agent.core.clock import LATEST
from ipsec_agent.core.model import Address
from ipsec_agent.core.problems.charon import PEER_CODES, SILENT
from ipsec_agent.core.problems.kept_faults import KEPT, Kept, Written, gist, is_due, resumed
from ipsec_agent.core.problems.optional import WAYS, ClearTalk
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular, write_whole
from ipsec_agent.host.understood import NOT_UNDERSTOOD

LARGEST = 1 << 24
"""Bytes that are read; all that is written is less."""

LONGEST = 300
"""Characters of a line of charon's log that are written."""


class FaultFile:
    """The file, of which a part that cannot be read costs only what it would have said."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._written = Written()

    def read(self) -> Kept:
        """What an earlier agent knew, as of now."""
        written, kept = _read(self._path)
        self._written = Written(gist(kept))
        return resumed(kept, written, time.time())

    def keep(self, kept: Kept, *, at_once: bool = False) -> None:
        """Write it again where something is new.

        Args:
            at_once: also shortly after the last time.
        """
        now = time.time()
        before = Written(self._written.gist) if at_once else self._written
        if not is_due(kept, before, now):
            return
        document = {
            "written": now,
            "peers": [_document(one) for one in kept.suspects[:KEPT]],
            "clear": [_talk_document(one) for one in kept.talks[:KEPT]],
        }
        # As with the peers: a full disk must not stop IPsec. It is tried again.
        try:
            write_whole(self._path, json.dumps(document) + "\n", mode=0o600)
        except AgentError:
            self._written = replace(self._written, time=now)
        else:
            self._written = Written(gist(kept), now)


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


def _talk_document(one: ClearTalk) -> dict[str, Any]:
    return {
        "peer": str(one.address),
        "since": one.since,
        "last": one.last,
        "way": one.way,
        "packets": one.packets,
        "encrypted": one.encrypted,
        "heard": one.heard,
    }


def _read(path: Path) -> tuple[float, Kept]:
    """When it was written, and what it says."""
    found: list[Suspect] = []
    left_out = 0
    try:
        with open_regular(path) as file:
            document = json.loads(file.read(LARGEST) or b"")
        written, peers = _time(document["written"]), document["peers"][:KEPT]
        for peer in peers:
            with contextlib.suppress(*NOT_UNDERSTOOD):
                suspect = _suspect(peer)
                left_out += len(peer["faults"]) - len(suspect.faults)
                found.append(suspect)
        # An earlier version wrote none.
        talks = tuple(_talks(document.get("clear")))
    except (OSError, *NOT_UNDERSTOOD):
        return 0.0, Kept()
    return written, Kept(tuple(found), talks, left_out)


def _talks(documents: Any) -> Iterator[ClearTalk]:
    """What the entries that can be understood say."""
    for one in documents[:KEPT] if isinstance(documents, list) else ():
        with contextlib.suppress(*NOT_UNDERSTOOD):
            yield _talk(one)


def _address(text: str) -> Address:
    """An address.

    Raises:
        ValueError: it is none, or one of a link.
    """
    address = ip_address(text)
    if "%" in str(address):
        raise ValueError(text)
    return address


def _talk(document: dict[str, Any]) -> ClearTalk:
    """What one entry says of a peer that speaks clear.

    Raises:
        ValueError: or another of NOT_UNDERSTOOD: it is none of ours.
    """
    way, packets = document["way"], document["packets"]
    if way not in WAYS or not 0 <= packets < LATEST:
        raise ValueError(way)
    since, last, encrypted = (_time(document[name]) for name in ("since", "last", "encrypted"))
    heard = bool(document["heard"])
    return ClearTalk(_address(document["peer"]), since, last, way, int(packets), encrypted, heard)


def _suspect(document: dict[str, Any]) -> Suspect:
    """What one entry says; of several faults of one kind, the last.

    Raises:
        ValueError: or another of NOT_UNDERSTOOD: it is none of ours.
    """
    peer = str(_address(document["peer"]))
    faults: dict[str, Fault] = {}
    for one in sorted((_fault(peer, *one) for one in document["faults"]), key=_last):
        before = faults.get(one.line.code, one)
        faults[one.line.code] = Fault(one.line, min(before.first, one.first))
    if not faults:
        raise ValueError(peer)
    answered, farewell, succeeded = map(_time, document["heard"])
    return Suspect(
        peer,
        tuple(faults.values()),
        Hearing(answered, farewell, succeeded, _time(document.get("tried", 0.0))),
        *(_time(document[name]) for name in ("seen", "unanswered", "watched")),
    )


def _last(fault: Fault) -> float:
    return fault.line.time


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
