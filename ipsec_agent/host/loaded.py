"""What was loaded into charon, which cannot show all of it: a fingerprint of each is remembered.

The memory is bound to one process; lost or stale, it costs one more load. The file
has all that was known once in its first line, and a line for each change since then: with hundreds
of connections, to write it whole at each of them took as long as to load them.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from msgspec import Struct

from ipsec_agent.core.inherited import Inherited
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.host.files import open_regular
from ipsec_agent.host.understood import NOT_UNDERSTOOD

LARGEST = 32 << 20
"""Bytes that are read; those of 10,000 peers are less than 4 MB."""

SPARE_LINES = 64
"""Lines beyond twice the connections after which the file is written whole."""


class _Known(Struct):
    """What is known of one charon.

    Attributes:
        lines: of the file; 0 where it is another charon's, damaged or not there.
    """

    process: CharonProcess
    connections: dict[str, str]
    left: Inherited = Inherited()
    lines: int = 0


class LoadedRecord:
    """The fingerprints, in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._known: _Known | None = None

    def fingerprints(self, process: CharonProcess) -> dict[str, str]:
        """Name to fingerprint, empty where nothing is known of this charon."""
        return dict(self._of(process).connections)

    def inherited(self, process: CharonProcess) -> Inherited:
        """What an earlier charon had left when this one was started, if anybody noted it."""
        return self._of(process).left

    def inherit(self, process: CharonProcess, left: Inherited) -> None:
        """Note what an earlier charon left."""
        known = self._of(process)
        known.left = left
        self._write(known)

    def remember(self, process: CharonProcess, name: str, fingerprint: str) -> None:
        """Remember what a connection was loaded as."""
        known = self._of(process)
        known.connections[name] = fingerprint
        self._add(known, name, fingerprint)

    def forget(self, process: CharonProcess, name: str) -> None:
        """Forget a connection, before it is touched."""
        known = self._of(process)
        if known.connections.pop(name, None) is not None:
            self._add(known, name, None)

    def _of(self, process: CharonProcess) -> _Known:
        if self._known is None or self._known.process.identity != process.identity:
            self._known = _read(self._path, process)
        return self._known

    def _add(self, known: _Known, name: str, fingerprint: str | None) -> None:
        if not 0 < known.lines <= 2 * len(known.connections) + SPARE_LINES:
            self._write(known)
            return
        line = f"{json.dumps([name, fingerprint])}\n".encode()
        try:
            descriptor = os.open(self._path, os.O_WRONLY | os.O_APPEND)
            try:
                whole = os.write(descriptor, line) == len(line)
            finally:
                os.close(descriptor)
        except OSError:
            whole = False
        known.lines += 1
        if not whole:
            # One that lacks a line may call loaded what was only begun.
            known.lines = 0
            with contextlib.suppress(OSError):
                self._path.unlink()

    def _write(self, known: _Known) -> None:
        record = {
            "pid": known.process.pid,
            "started": known.process.started,
            "birth": known.process.birth,
            "connections": known.connections,
            "inherited": [sorted(known.left.spis), sorted(known.left.policies)],
        }
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        known.lines = 0
        # Lost memory costs one load; a full disk must not stop IPsec.
        with contextlib.suppress(OSError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                file.write(json.dumps(record) + "\n")
            temporary.replace(self._path)
            known.lines = 1


def _read(path: Path, process: CharonProcess) -> _Known:
    """What a file says of a charon; what is damaged in it, and what follows, is not known."""
    known = _Known(process, {})
    try:
        with open_regular(path) as file:
            first, *lines = file.read(LARGEST).splitlines() or [b""]
        record = json.loads(first)
        if not isinstance(record, dict) or not _is_of(record, process):
            return known
        connections, changes = record.get("connections"), [json.loads(line) for line in lines]
    except (OSError, *NOT_UNDERSTOOD):
        return known
    if isinstance(connections, dict):
        known.connections = {str(name): str(mark) for name, mark in connections.items()}
    known.left = _left(record.get("inherited"))
    for change in changes:
        match change:
            case [str(name), str(mark)]:
                known.connections[name] = mark
            case [str(name), None]:
                known.connections.pop(name, None)
            case _:
                return _Known(process, {})
    known.lines = 1 + len(changes)
    return known


def _is_of(record: dict[str, Any], process: CharonProcess) -> bool:
    """Whether a record is of this charon; an earlier version knew its start by the clock only."""
    if record.get("birth") and process.birth:
        return bool(record["birth"] == process.birth)
    return (record.get("pid"), record.get("started")) == (process.pid, process.started)


def _left(found: Any) -> Inherited:
    try:
        spis, policies = found
        return Inherited(frozenset(map(int, spis)), frozenset(map(int, policies)))
    except NOT_UNDERSTOOD:
        return Inherited()
