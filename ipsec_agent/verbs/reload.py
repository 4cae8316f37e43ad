"""`ipsec-agent reload`: reload the config in the agent; a refused one changes nothing."""

import argparse
import sys
from typing import Any

from ipsec_agent.core.words import several
from ipsec_agent.host.control_client import ask
from ipsec_agent.host.own_process import complain, say
from ipsec_agent.verbs.commands import repeatable

SAYS = {
    "accepted": "accepts it",
    "refused": "refuses it",
    "silent": "does not answer",
}
"""Of a peer, in a rehearsal; what else an agent answers is said as it is."""

TOO_LATE = "not asked in time"

PATIENCE = 120
"""Seconds for the answer: the agent bounds each rehearsal (core/rehearsal.py), before or after
which a slow charon, the reading of a config and its way into force take theirs."""


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    # Nobody answers a deployment's questions: without a terminal it goes on.
    asks = sys.stdin.isatty() and sys.stdout.isatty() and not arguments.force
    if arguments.dry_run:
        answer = ask(arguments.socket, "rehearse", deadline=PATIENCE, asks=asks)
        _warn(answer, arguments)
        return _tell(answer)
    answer = ask(arguments.socket, "reload", deadline=PATIENCE, force=arguments.force, asks=asks)
    _warn(answer, arguments)
    say("reloaded\n")
    return 0


def _warn(answer: dict[str, Any], arguments: argparse.Namespace) -> None:
    # An agent of an earlier version sends no warnings.
    complain("".join(f"{repeatable(text, arguments)}\n" for text in answer.get("warnings", [])))


def _tell(answer: dict[str, Any]) -> int:
    """What a rehearsal has found; the exit code."""
    if answer["same"]:
        say("the config has the certificate and the CAs that are in force\n")
    for one in answer["peers"]:
        reason = f" ({one['reason']})" if one["reason"] else ""
        say(f"{one['address']}: {SAYS.get(one['answer'], one['answer'])}{reason}\n")
    late = sum(one["answer"] == TOO_LATE for one in answer["peers"])
    if late:
        say(f"no time was left to ask {late} of {several(len(answer['peers']), 'peer')}\n")
    if not answer["peers"]:
        say("the config is good; no peer has an SA, so none was asked\n")
    return 1 if answer["refused"] else 0
