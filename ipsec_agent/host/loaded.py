"""What was loaded into charon: it cannot show all of it, so a fingerprint of each is remembered.

The memory is bound to charon's pid and start time; lost or stale, it costs one more load.
"""

import contextlib
import json
import os
from pathlib import Path

from ipsec_agent.core.observed import CharonProcess


class LoadedRecord:
    """The fingerprints, in a file of mode 0600."""

    def __init__(self, path: Path) -> None:
        self._path = path

    def fingerprints(self, process: CharonProcess) -> dict[str, str]:
        """Name to fingerprint, empty where nothing is known of this charon."""
        try:
            record = json.loads(self._path.read_text())
            if (record["pid"], record["started"]) != (process.pid, process.started):
                return {}
            return {str(name): str(mark) for name, mark in record["connections"].items()}
        except (OSError, ValueError, KeyError, TypeError, AttributeError):
            return {}

    def remember(self, process: CharonProcess, name: str, fingerprint: str) -> None:
        """Remember what a connection was loaded as."""
        self._write(process, {**self.fingerprints(process), name: fingerprint})

    def forget(self, process: CharonProcess, name: str) -> None:
        """Forget a connection, before it is touched."""
        known = self.fingerprints(process)
        if known.pop(name, None) is not None:
            self._write(process, known)

    def _write(self, process: CharonProcess, connections: dict[str, str]) -> None:
        record = {"pid": process.pid, "started": process.started, "connections": connections}
        temporary = self._path.with_name(f".{self._path.name}.{os.getpid()}")
        # Lost memory costs one load; a full disk must not stop IPsec.
        with contextlib.suppress(OSError):
            descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(descriptor, "w") as file:
                json.dump(record, file)
            temporary.replace(self._path)
