"""The options of `status`. Imports nothing slow: each call of any verb reads it."""

import argparse

from ipsec_agent.verbs.argument_types import address, whole

GOALS = ("healthy", "running")

LONGEST, PATIENCE = 3600, 60
"""Seconds that a wait may take, and that it takes where nothing else is said."""

STATES = {
    "clear": "sends clear packets, or is sent some",
    "refused": "it refuses this VM, or this VM refuses it",
    "silent": "does not answer",
    "connecting": "an SA is being negotiated",
    "unknown": "by ESP while charon does not answer",
    "orphan": "by ESP on SAs of an earlier charon",
    "up": "by ESP",
    "gone": "has ended its SAs, or not answered for a while",
}
"""How a peer may be (core/status_view.py), and what that means."""


def add_to(verb: argparse.ArgumentParser) -> None:
    """What `status` takes beside the socket."""
    verb.add_argument(
        "peer",
        nargs="?",
        type=address,
        metavar="PEER",
        help="address of a peer: show all that is known of it",
    )
    verb.add_argument("--json", action="store_true", help="print JSON with a stable schema")
    verb.add_argument("--watch", action="store_true", help="repeat every second")
    verb.add_argument("--peers", action="store_true", help="show one line for each peer")
    verb.add_argument(
        "--events",
        action="store_true",
        help="show what has happened: repairs, reloads, problems that came and went, peers lost and"
        " back; the newest last",
    )
    means = "; ".join(f"{state}: {what}" for state, what in STATES.items())
    verb.add_argument(
        "--filter", choices=STATES, metavar="STATE", help=f"show only peers in a state ({means})"
    )
    verb.add_argument(
        "--wait",
        choices=GOALS,
        help="wait until this VM is healthy, or IPsec is enforced (running); exit code 0 it is,"
        " 1 not in time, 3 no agent runs",
    )
    verb.add_argument(
        "--timeout",
        type=whole(0, LONGEST),
        metavar="S",
        help=f"seconds that --wait takes at the most; default: {PATIENCE}",
    )
