"""`ipsec-agent renew`: move peers to the certificate in force, without an interruption."""

import argparse

from ipsec_agent.core.words import several
from ipsec_agent.host.control_client import ask
from ipsec_agent.host.own_process import say
from ipsec_agent.verbs.commands import repeatable

SILENT = "it has not answered yet; `ipsec-agent status` shows whether it moves"


def main(arguments: argparse.Namespace) -> int:
    """Ask, and say what came of it; 0 where no peer is left on another certificate."""
    answer = ask(arguments.socket, "renew", deadline=30, peers=arguments.peers)
    moved, left = answer["moved"], answer["left"]
    for peer in moved:
        say(f"{peer}: moved to the certificate in force\n")
    for one in left:
        reason = repeatable(one["reason"] or SILENT, arguments)
        say(f"{one['address']}: not moved: {reason}\n")
    if not answer["peers"]:
        say("there is no SA with any peer, so there was nothing to move\n")
    others = answer["peers"] - len(moved) - len(left)
    if others:
        say(f"{several(others, 'peer')}: on the certificate in force already\n")
    return 1 if left else 0
