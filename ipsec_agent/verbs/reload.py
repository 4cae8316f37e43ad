"""`ipsec-agent reload`: reload the config in the agent; a refused one changes nothing."""

import argparse
import sys

from ipsec_agent.host.control_client import ask


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    ask(arguments.socket, "reload", deadline=30)
    sys.stdout.write("reloaded\n")
    return 0
