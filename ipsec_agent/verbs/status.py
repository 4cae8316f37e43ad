"""`ipsec-agent status`: show the current state. Imports little, to start at once."""

import argparse
import json
import sys
from typing import Any

from ipsec_agent.core.commands import About
from ipsec_agent.core.status_view import BY_ESP
from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import NotRunningError, ask
from ipsec_agent.host.own_process import CLEAR_SCREEN, pause, say
from ipsec_agent.verbs import status_events, status_peer, status_peers, status_wait, terminal
from ipsec_agent.verbs.status_absent import tell_failure
from ipsec_agent.verbs.status_text import text


def main(arguments: argparse.Namespace) -> int:
    """Print the status once, or each second; 0 healthy (a peer: by ESP), 1 not, 3 not running."""
    if arguments.wait:
        return status_wait.main(arguments)
    while True:
        code = _once(arguments)
        if not arguments.watch:
            return code
        sys.stdout.flush()
        pause(1)


def _once(arguments: argparse.Namespace) -> int:
    try:
        status = ask(arguments.socket, "status")["status"]
    except ControlError as error:
        if not isinstance(error, NotRunningError) and not arguments.watch:
            raise
        return tell_failure(error, arguments)
    if arguments.watch and not arguments.json and sys.stdout.isatty():
        say("", before=CLEAR_SCREEN)
    return 0 if _tell(status, arguments) else 1


def _tell(status: dict[str, Any], arguments: argparse.Namespace) -> bool:
    """Print what was asked for, as JSON or for a person; whether that is well."""
    well, found = bool(status["healthy"]), status
    if "charon" not in status and not arguments.json:
        # The agent has not looked yet.
        said = text(status)
    elif arguments.peer:
        view = status_peer.the_peer(status, arguments.peer)
        well = view.condition in BY_ESP
        found, said = status_peer.as_json(status, view), status_peer.text(status, view)
    elif arguments.peers or arguments.filter:
        views = status_peers.chosen(status, arguments.filter)
        found = status_peers.as_json(status, views)
        said = status_peers.table(views, terminal.screen().fits)
    elif arguments.events:
        found, said = status_events.as_json(status), status_events.text(status)
    else:
        said = "" if arguments.json else text(status)
    if arguments.json:
        say(json.dumps(found) + "\n")
    else:
        # It must not scroll: the verdict comes first, and the newest event last.
        part = terminal.Part.LAST if arguments.events else terminal.Part.FIRST
        said = completed(said, status, arguments)
        terminal.show(said, part if arguments.watch else terminal.Part.ALL)
    return well


def completed(said: str, status: dict[str, Any], arguments: argparse.Namespace) -> str:
    """A text whose commands work for this agent."""
    return About(status.get("config", ""), arguments.socket).text(said)
