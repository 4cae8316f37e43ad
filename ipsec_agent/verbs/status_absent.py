"""What `status` says where no agent answers, and whether a drain has ended it."""

import argparse
import json
import time
from pathlib import Path
from typing import Any

from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import NotRunningError
from ipsec_agent.host.own_process import complain, say
from ipsec_agent.verbs.failure import NOT_RUNNING, tell

DRAIN_FILE = "drain.json"
"""In the run directory, while a drain says something (host/drain_file.py)."""


def tell_failure(error: ControlError, arguments: argparse.Namespace) -> int:
    """Say that no agent answers, and what a drain says; the exit code."""
    if not isinstance(error, NotRunningError):
        return tell(error, arguments)
    drained = _drained(Path(arguments.socket).parent)
    if arguments.json:
        stopped = {"schema": 1, "state": "stopped", "healthy": False, "problems": []}
        say(json.dumps(stopped | (drained[1] if drained else {})) + "\n")
    said = f"{drained[0]}\n  note: " if drained else ""
    complain(f"ipsec-agent: {said}{error.message}\n  hint: {error.hint}\n")
    return NOT_RUNNING


def _drained(run_dir: Path) -> tuple[str, dict[str, Any]] | None:
    """What a drain says that goes on, or ended IPsec, without an agent; None without one."""
    try:
        if not (run_dir / DRAIN_FILE).exists():
            return None
    except OSError:
        # Who may not look there is told nothing of it.
        return None
    # Here, for the other paths do without.
    from ipsec_agent.core.drain import Phase, entry, sentence  # noqa: PLC0415
    from ipsec_agent.host.drain_file import DrainFile  # noqa: PLC0415

    drain = DrainFile(run_dir).read()
    if drain is None:
        return None
    state = "stopped" if drain.phase is Phase.ENDED else "draining"
    return sentence(drain, time.time()), {"state": state, "drain": entry(drain, time.time())}
