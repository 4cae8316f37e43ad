"""`ipsec-agent reload`: reload the config in the agent; a refused one changes nothing."""

import argparse
import sys

from ipsec_agent.host.control_client import ask
from ipsec_agent.host.own_process import complain


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it."""
    answer = ask(
        arguments.socket,
        "reload",
        deadline=30,
        # Nobody answers a deployment's questions: without a terminal it goes on.
        asks=sys.stdin.isatty() and sys.stdout.isatty() and not arguments.force,
    )
    # An agent of an earlier version tells of none.
    complain("".join(f"{text}\n" for text in answer.get("warnings", [])))
    sys.stdout.write("reloaded\n")
    return 0
