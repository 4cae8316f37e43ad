"""With which of our certificates each IKE_SA was made: in a file while there is more than one.

As with what was loaded (loaded.py), the notes are bound to one process; lost ones make SAs of
whose certificate nothing is said.
"""

import contextlib
import json
import time
from collections.abc import Iterable
from pathlib import Path

import msgspec
from msgspec import Struct, field
from msgspec.structs import replace

from ipsec_agent.core.credential_set import (
    UNKNOWN,
    Made,
    loaded_now,
    noted,
    set_of,
    settled,
    turned,
)
from ipsec_agent.core.model import Connection, CredentialSet
from ipsec_agent.core.observed import CharonProcess, IkeSa, LoadedConnection
from ipsec_agent.core.swanctl import set_mark
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular, write_whole
from ipsec_agent.host.understood import NOT_UNDERSTOOD

LARGEST = 8 << 20
"""Bytes of the file; 2,000 IKE_SAs take 0.1 MB."""


class _Notes(Struct, frozen=True):
    """The file, which is written only where an IKE_SA may be of one set or of another."""

    process: str
    sets: tuple[CredentialSet, ...] = ()
    made: dict[int, Made] = field(default_factory=dict)


class MadeWith:
    """The notes of one charon, in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._notes: _Notes | None = None
        self._earlier: dict[str, str] | None = None
        self._clocks = time.time(), time.monotonic()

    def begin(self, process: CharonProcess) -> None:
        """Note that this charon is new: it has had no certificate yet."""
        self._earlier = None
        self._notes = _Notes(process.identity)
        self._write()

    def sets(self, process: CharonProcess) -> tuple[CredentialSet, ...]:
        """The sets that this charon has had, the newest last."""
        return self._of(process).sets

    def loading(self, process: CharonProcess | None, connection: Connection) -> None:
        """Note that a connection is about to be loaded; shunts have no certificate."""
        if process is None or connection.settings is None:
            return
        found, notes = set_of(connection.settings), self._of(process)
        sets = loaded_now(notes.sets, found, time.time())
        if sets is not notes.sets:
            self._notes = replace(notes, sets=sets)
            self._write()

    def see(
        self,
        process: CharonProcess,
        sas: Iterable[IkeSa],
        connections: Iterable[LoadedConnection],
    ) -> tuple[IkeSa, ...]:
        """The IKE_SAs, each with the mark of its set.

        Args:
            connections: what is loaded.
        """
        marks = ((one.name, set_mark(one.fingerprint)) for one in connections)
        loaded = {name: mark for name, mark in marks if mark}
        listed = tuple(sas)
        if not listed and not loaded and self._of(process).sets == (UNKNOWN,):
            # systemd has started it, and it has had nothing yet.
            self.begin(process)
        notes = self._of(process)
        made = noted(notes.made, notes.sets, listed, loaded, self._earlier)
        sets = turned(settled(notes.sets, made, loaded), self._clock_set_by(), time.time())
        self._notes, self._earlier = replace(notes, sets=sets, made=made), loaded
        if sets != notes.sets or (len(sets) > 1 and made != notes.made):
            self._write()
        nothing = Made("")
        return tuple(replace(sa, made_with=made.get(sa.unique_id, nothing).mark) for sa in listed)

    def _clock_set_by(self) -> float:
        """Seconds by which the clock was set since the last look; a suspended VM's counts, too."""
        (clock, steady), self._clocks = self._clocks, (time.time(), time.monotonic())
        return (self._clocks[0] - clock) - (self._clocks[1] - steady)

    def _of(self, process: CharonProcess) -> _Notes:
        notes = self._notes
        if notes is None or notes.process != process.identity:
            notes = self._notes = _read(self._path, process)
            self._earlier = None
        return notes

    def _write(self) -> None:
        # Lost notes are told as unknown; a full disk must not stop IPsec.
        with contextlib.suppress(AgentError):
            text = json.dumps(msgspec.to_builtins(self._notes, str_keys=True))
            write_whole(self._path, f"{text}\n", mode=0o600)


def _read(path: Path, process: CharonProcess) -> _Notes:
    """What the file says of a charon; where that is nothing, what it had before is not known."""
    unknown = _Notes(process.identity, (UNKNOWN,))
    try:
        with open_regular(path) as file:
            notes = msgspec.json.decode(file.read(LARGEST) or b"", type=_Notes)
    except (OSError, *NOT_UNDERSTOOD):
        return unknown
    return notes if notes.process == process.identity else unknown
