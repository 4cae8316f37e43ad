"""`ipsec-agent stop`: end charon cleanly, then the agent."""

import argparse
import sys

from ipsec_agent.host.control_client import ask


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    ask(arguments.socket, "stop", deadline=120)
    sys.stdout.write("charon has stopped, and the agent stops\n")
    return 0
