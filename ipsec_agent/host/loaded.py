"""What was loaded into charon, which cannot show all of it: a fingerprint of each is remembered.

The memory is bound to charon's pid and start time; lost or stale, it costs one more load.
"""

import contextlib
import json
import os
from pathlib import Path
from typing import Any

from ipsec_agent.core.observed import CharonProcess, Inherited


class LoadedRecord:
    """The fingerprints, in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fingerprints(self, process: CharonProcess) -> dict[str, str]:
        """Name to fingerprint, empty where nothing is known of this charon."""
        found = self._read(process).get("connections")
        if not isinstance(found, dict):
            return {}
        return {str(name): str(mark) for name, mark in found.items()}

    def inherited(self, process: CharonProcess) -> Inherited:
        """What an earlier charon had left when this one was started, if anybody noted it."""
        found: Any = self._read(process).get("inherited")
        try:
            spis, policies = found
            return Inherited(frozenset(map(int, spis)), frozenset(map(int, policies)))
        except (TypeError, ValueError):
            return Inherited()

    def inherit(self, process: CharonProcess, left: Inherited) -> None:
        """Note what an earlier charon left."""
        self._write(process, self.fingerprints(process), left)

    def _read(self, process: CharonProcess) -> dict[str, Any]:
        try:
            record = json.loads(self._path.read_text())
        except (OSError, ValueError, RecursionError):
            return {}
        if not isinstance(record, dict):
            return {}
        ours = (record.get("pid"), record.get("started")) == (process.pid, process.started)
        return record if ours else {}

    def remember(self, process: CharonProcess, name: str, fingerprint: str) -> None:
        """Remember what a connection was loaded as."""
        known = {**self.fingerprints(process), name: fingerprint}
        self._write(process, known, self.inherited(process))

    def forget(self, process: CharonProcess, name: str) -> None:
        """Forget a connection, before it is touched."""
        known = self.fingerprints(process)
        if known.pop(name, None) is not None:
            self._write(process, known, self.inherited(process))

    def _write(self, process: CharonProcess, connections: dict[str, str], left: Inherited) -> None:
        record = {
            "pid": process.pid,
            "started": process.started,
            "connections": connections,
            "inherited": [sorted(left.spis), sorted(left.policies)],
        }
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        # Lost memory costs one load; a full disk must not stop IPsec.
        with contextlib.suppress(OSError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(record, file)
            temporary.replace(self._path)
