"""The answer of the control verb `health`: few bytes that a supervisor can match.

monit compares a regular expression with the first 255 bytes of an answer ("sendExpectBuffer",
monit(1)), and writes those it did not expect into its log; so what is matched comes first, and the
reason last.
"""

import json
from typing import Any

from ipsec_agent.core.config import Config
from ipsec_agent.core.problems.problem import loudest_first
from ipsec_agent.core.status import Snapshot, State

LONGEST = 255
"""Bytes of the answer's line."""

PATIENCE = 60.0
"""Seconds beyond all that a pass may rightly take, after which the loop counts as hung."""


def health_answer(config: Config, snapshot: Snapshot | None, since: float) -> dict[str, Any]:
    """`alive`, `healthy`, `state`, `worst` (a severity, or none) and `reason`.

    Args:
        snapshot: of the newest pass, None before the first has ended.
        since: seconds since it ended, or since the agent began.
    """
    # A pass may start charon, and the next one begins an interval later.
    alive = since <= config.prestart_timeout + 2 * config.agent.interval + PATIENCE
    worst = next(iter(loudest_first(snapshot.problems)), None) if snapshot else None
    state = snapshot.state if snapshot else State.STARTING
    if not alive:
        because = f"no pass has finished for {since:.0f} s"
    else:
        because = f"{worst.code}: {worst.message}" if worst else ""
    return _cut(
        {
            "alive": alive,
            "healthy": alive and snapshot is not None and snapshot.healthy,
            "state": state.value,
            "worst": worst.severity.value if worst else "none",
            "reason": because,
        }
    )


def _cut(answer: dict[str, Any]) -> dict[str, Any]:
    """The answer with a reason that is short enough for the whole line."""
    while answer["reason"] and len(json.dumps({"ok": True, **answer})) >= LONGEST:
        answer["reason"] = answer["reason"][:-1]
    return answer
