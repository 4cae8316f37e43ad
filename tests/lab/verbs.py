"""What the verbs say of a VM: `verify` within it, and the words of status and log."""

import json
import re
import subprocess
from typing import Any

from tests.charon.nodes import AGENT, SCALE, Node, until
from tests.incidents import Incident, of_log, told


def plain(text: str) -> str:
    """A text whose commands name no file of the VM."""
    return re.sub(r" --(?:config|socket) [^ `]+", "", text)


def verify(node: Node, *peers: str, seconds: int = 40) -> list[dict[str, Any]]:
    """What `verify` says of peers; `--all` is one, too. Its hints are plain."""
    socket = str(node.run_dir / "control.sock")
    done = subprocess.run(
        node.command(
            *(*AGENT, "verify", "--socket", socket, "--json", "--timeout", str(seconds), *peers)
        ),
        check=False,
        capture_output=True,
        text=True,
        timeout=200,
    )
    assert done.stdout, done.stderr
    found = json.loads(done.stdout)
    assert "peers" in found, found
    proven = all(one["verdict"] == "proven" for one in found["peers"])
    assert (done.returncode, found["proven"]) == (0 if proven else 1, proven)
    return [one | {"hint": plain(one["hint"])} for one in found["peers"]]


TOLD_WITHIN = 40 + 10 * SCALE
"""Seconds until a problem is told: most of it is for `agent.proof: 10`, as docs/verify.md says."""


def in_status(node: Node, incident: Incident, *words: str) -> dict[str, Any]:
    """The problem once the status has it with its words, and these; the log has them in one line.

    Other problems may be there: `tests.charon.reading.reads` is stricter.
    """

    def found(entries: list[dict[str, Any]]) -> dict[str, Any] | None:
        wanted = (*incident.words, *words)
        return next(
            (one for one in entries if one["code"] == incident.code and _has(one, wanted)), None
        )

    problem: dict[str, Any] = until(
        lambda: found(node.status()["problems"]),
        lambda: f"{incident} {words}: {node.status()['problems']}",
        TOLD_WITHIN,
    )
    lines = of_log(node.log)
    assert found([one for one in lines if one.get("code") == incident.code]), lines
    told(incident, node.ask("status").stdout, lines)
    return problem


def _has(problem: dict[str, Any], words: tuple[str, ...]) -> bool:
    # A line that a problem is over has no hint.
    text = f"{problem['message']} {problem.get('hint', '')}"
    return all(word in text for word in words)
