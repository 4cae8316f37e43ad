"""`status --wait`: wait until the VM is healthy, or IPsec is enforced; for pre-starts and CI."""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ipsec_agent.core.commands import About
from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import ask
from ipsec_agent.host.own_process import CLEAR_LINE, complain, say
from ipsec_agent.verbs import terminal
from ipsec_agent.verbs.status_absent import tell_failure
from ipsec_agent.verbs.status_arguments import PATIENCE
from ipsec_agent.verbs.status_text import rank, shown, verdict

EACH = 1.0
"""Seconds between two questions: each of them has the agent look."""

ANSWER, SHORTEST = 10.0, 0.5
"""Seconds that an answer may take: as long as is left, within these bounds."""

ENFORCED = frozenset({"running", "degraded"})


def main(arguments: argparse.Namespace) -> int:
    """Wait; 0 it is so, 1 it is not in time, 3 no agent runs."""
    began = time.monotonic()
    patience = _patience(arguments)
    with _progress() as tell:
        while True:
            rest = patience - (time.monotonic() - began)
            found = _asked(arguments.socket, min(max(rest, SHORTEST), ANSWER))
            if isinstance(found, dict) and reached(found, arguments.wait):
                break
            # Answering took some of it.
            rest = patience - (time.monotonic() - began)
            if rest <= 0:
                break
            waited = time.monotonic() - began
            tell(f"waiting for {arguments.wait}, {waited:.0f} s: {_brief(found)}")
            time.sleep(min(EACH, rest))
    return _ended(found, arguments)


def _patience(arguments: argparse.Namespace) -> int:
    given = arguments.timeout
    return PATIENCE if given is None else int(given)


def reached(status: dict[str, Any], goal: str) -> bool:
    """Whether a status is what is waited for."""
    return bool(status["healthy"]) if goal == "healthy" else status["state"] in ENFORCED


def _asked(socket: str, deadline: float) -> dict[str, Any] | ControlError:
    try:
        status: dict[str, Any] = ask(socket, "status", deadline=deadline)["status"]
    except ControlError as error:
        return error
    return status


def _brief(found: dict[str, Any] | ControlError) -> str:
    if isinstance(found, ControlError):
        return found.message
    return ", ".join(filter(None, (found["state"], _codes(found))))


def _ended(found: dict[str, Any] | ControlError, arguments: argparse.Namespace) -> int:
    """Say how it ended; the exit code."""
    late = f"ipsec-agent: not {arguments.wait} within {_patience(arguments)} s\n"
    if isinstance(found, ControlError):
        complain(late)
        return tell_failure(found, arguments)
    well = reached(found, arguments.wait)
    lines = [_reached(found)] if well else verdict(found)
    about = About(found.get("config", ""), arguments.socket)
    said = about.text(shown(lines))
    if arguments.json:
        say(json.dumps(found) + "\n")
    else:
        terminal.show(said)
    if not well:
        complain(late)
    return 0 if well else 1


def _reached(status: dict[str, Any]) -> str:
    """The verdict in a line, which does not sound like a failure: that was not asked for."""
    line = verdict(status)[0]
    if status["healthy"]:
        return line
    begin, _, _ = line.partition(":")
    return f"{begin}: runs, as waited for; not healthy: {_codes(status)}"


def _codes(status: dict[str, Any]) -> str:
    """The problems that keep it from being healthy, the worst first."""
    problems = sorted(status["problems"], key=rank)
    return ", ".join(one["code"] for one in problems if one["severity"] != "info")


class _Progress:
    """A line of a terminal that is written again and again; nothing where there is none."""

    def __init__(self) -> None:
        self._on = sys.stderr.isatty()

    def __call__(self, text: str) -> None:
        if self._on:
            columns = terminal.columns()
            complain(terminal.cut(shown([text]).rstrip("\n"), columns - 1), before=CLEAR_LINE)

    def clear(self) -> None:
        """Leave nothing of it."""
        if self._on:
            complain("", before=CLEAR_LINE)


@contextmanager
def _progress() -> Iterator[_Progress]:
    """A line of progress, which is gone afterwards, also after Ctrl-C."""
    line = _Progress()
    try:
        yield line
    finally:
        line.clear()
