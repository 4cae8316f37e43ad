"""Commands in messages: they carry the `--config` and `--socket` that the user gave."""

import argparse
import re

DEFAULT_CONFIG = "/etc/ipsec-agent/ipsec.yml"

COMMAND = re.compile(
    r"`(ipsec-agent (?:run|status(?: --(?:peers|events))?|reload|renew|stop"
    r"|guard (?:up|down|status)))`"
    r"(?! (?:on that VM|there))"
)
"""Of this VM: what is to be run on another one has paths of its own."""

TAKES_CONFIG = ("run", "guard")
TAKES_SOCKET = ("status", "reload", "renew", "stop", "guard up", "guard down")


def repeatable(text: str, given: argparse.Namespace, default_socket: str) -> str:
    """The text; each command in it works for the agent and config that this one was about."""
    config, socket = getattr(given, "config", None), getattr(given, "socket", None)

    def complete(found: re.Match[str]) -> str:
        verb = found[1].removeprefix("ipsec-agent ")
        more = ""
        if config not in {None, DEFAULT_CONFIG} and verb.startswith(TAKES_CONFIG):
            more += f" --config {config}"
        if socket not in {None, default_socket} and verb.startswith(TAKES_SOCKET):
            more += f" --socket {socket}"
        return f"`{found[1]}{more}`"

    return COMMAND.sub(complete, text)
