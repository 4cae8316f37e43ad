"""The options of `status`. Imports nothing slow: each call of any verb reads it."""

import argparse

GOALS = ("healthy", "running")

LONGEST = 3600
"""Seconds that a wait may take."""

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
        "peer", nargs="?", metavar="PEER", help="address of a peer: show all that is known of it"
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
        type=_seconds,
        default=60,
        metavar="S",
        help="seconds that --wait takes at the most; default: %(default)s",
    )


def _seconds(text: str) -> int:
    number = int(text) if text.isdecimal() and len(text) <= len(str(LONGEST)) else -1
    if not 0 <= number <= LONGEST:
        raise argparse.ArgumentTypeError(f"must be a whole number from 0 to {LONGEST}")
    return number
