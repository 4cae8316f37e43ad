"""`ipsec-agent status`: what is, from the running agent. Imports little, to start at once."""

import argparse
import json
import sys
import time
from typing import Any

from ipsec_agent.host.control_client import NotRunningError, ask

NOT_RUNNING = 3
"""LSB's exit code of `status` for a program that is not running."""

CLEAR_SCREEN = "\x1b[H\x1b[J"


def main(arguments: argparse.Namespace) -> int:
    """Print the status once, or each second; 0 healthy, 1 degraded, 3 not running."""
    while True:
        code = _once(arguments)
        if not arguments.watch:
            return code
        time.sleep(1)


def _once(arguments: argparse.Namespace) -> int:
    try:
        status = ask(arguments.socket, "status")["status"]
    except NotRunningError as error:
        if arguments.json:
            sys.stdout.write(
                json.dumps({"schema": 1, "state": "stopped", "healthy": False, "problems": []})
                + "\n"
            )
        sys.stderr.write(f"ipsec-agent: {error.message}\n  hint: {error.hint}\n")
        return NOT_RUNNING
    if arguments.json:
        sys.stdout.write(json.dumps(status) + "\n")
    else:
        if arguments.watch and sys.stdout.isatty():
            sys.stdout.write(CLEAR_SCREEN)
        sys.stdout.write(text(status))
    sys.stdout.flush()
    return 0 if status["healthy"] else 1


def text(status: dict[str, Any]) -> str:
    """The status for a person."""
    health = "healthy" if status["healthy"] else "NOT HEALTHY"
    lines = [f"ipsec-agent {status.get('version', '')}: {status['state']}, {health}"]
    for problem in status["problems"]:
        lines.append(f"  {problem['severity'].upper()} {problem['code']}: {problem['message']}")
        lines.append(f"    {problem['hint']}")
    if "charon" not in status:
        return "\n".join(lines) + "\n"
    lines += [f"address    {', '.join(status['addresses']) or 'unknown'} ({status['role']})"]
    lines += [f"  note: {note}" for note in status["notes"]]
    lines += [f"charon     {_charon(status['charon'])}"]
    policies = status["policies"]
    lines.append(
        f"policies   {policies['installed']} of {policies['desired']} in the kernel,"
        f" {len(policies['foreign'])} foreign"
    )
    lines += ["connections"] + [_connection(item) for item in status["connections"]]
    lines += [f"peers ({len(status['peers'])})"] + [_peer(peer) for peer in status["peers"]]
    lines += ["certificates"] + [
        f"  {item['role']:12} {item['subject']}: {item['days_left']:g} days left"
        for item in status["certificates"]
    ]
    lines += ["links"] + [f"  {link['name']:12} MTU {link['mtu']}" for link in status["links"]]
    return "\n".join(lines) + "\n"


def _charon(charon: dict[str, Any] | None) -> str:
    if charon is None:
        return "does not run"
    answers = "" if charon["responsive"] else ", does not answer"
    return f"{charon['version']}, pid {charon['pid']}, {charon['memory'] >> 20} MiB{answers}"


def _connection(item: dict[str, Any]) -> str:
    state = "enforced" if item["enforced"] else "NOT IN THE KERNEL"
    return f"  {item['action']:8} {item['name']:40} {state}"


def _peer(peer: dict[str, Any]) -> str:
    twice = f", {peer['duplicates']} duplicate" if peer["duplicates"] else ""
    return (
        f"  {peer['address']:24} {peer['state']:12} age {peer['age']} s,"
        f" in {peer['packets_in']} packets, out {peer['packets_out']} packets{twice}"
    )
