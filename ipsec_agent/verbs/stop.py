"""`ipsec-agent stop`: end charon cleanly, then the agent."""

import argparse

from ipsec_agent.host.control_client import ask
from ipsec_agent.host.own_process import say


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    ask(arguments.socket, "stop", deadline=120)
    say("charon has stopped, and the agent stops\n")
    return 0
