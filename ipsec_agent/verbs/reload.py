"""`ipsec-agent reload`: reload the config in the agent; a refused one changes nothing."""

import argparse
import sys

from ipsec_agent.host.control_client import ask
from ipsec_agent.host.own_process import complain


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    answer = ask(arguments.socket, "reload", deadline=30)
    # An agent of an earlier version tells of none.
    complain("".join(f"{text}\n" for text in answer.get("warnings", [])))
    sys.stdout.write("reloaded\n")
    return 0
