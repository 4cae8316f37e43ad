"""`ipsec-agent verify`: prove that packets to peers are ESP, or name what is at fault."""

import argparse
import asyncio
import json
import os
import sys
from ipaddress import ip_address
from typing import Any

from msgspec.structs import replace

from ipsec_agent.core.commands import About
from ipsec_agent.core.model import Address
from ipsec_agent.core.proof import Finding, Observation, Verdict
from ipsec_agent.core.verify import judge
from ipsec_agent.core.verify_status import document, entry, known_peers
from ipsec_agent.core.words import several
from ipsec_agent.errors import AgentError, StartError
from ipsec_agent.host.control_client import NotRunningError, ask
from ipsec_agent.host.own_process import complain
from ipsec_agent.verbs.failure import NOT_RUNNING, tell
from ipsec_agent.verbs.terminal import CLEAR_LINE
from ipsec_agent.verification import verify


def main(arguments: argparse.Namespace) -> int:
    """Print a verdict for each peer; 0 where all are proven, 1 where not, 3 without an agent."""
    _as_root("verify")
    given = tuple(map(ip_address, arguments.peers))
    try:
        status = _status(arguments.socket)
        peers = given or known_peers(status)
        if not peers:
            raise AgentError(
                "the agent knows no peer yet", hint="name one: `ipsec-agent verify 10.0.1.9`"
            )
        return asyncio.run(_verify(arguments, tuple(dict.fromkeys(peers)), status))
    except NotRunningError as error:
        return tell(error, arguments, NOT_RUNNING)


def seen_of(peer: str, socket: str, patience: float) -> Observation:
    """What is seen of one peer.

    Raises:
        AgentError: no agent answers, or this process is not root.
    """
    _as_root("--probe")
    address = ip_address(peer)

    async def seen() -> Observation:
        return await anext(verify((address,), lambda: _status(socket), patience))

    return asyncio.run(seen())


def _as_root(what: str) -> None:
    if os.geteuid() != 0:
        raise StartError(
            f"{what} needs root to capture packets and to read the kernel's SAs",
            hint="run it with sudo",
        )


def _status(socket: str) -> dict[str, Any]:
    found: dict[str, Any] = ask(socket, "status")["status"]
    if "connections" not in found:
        raise AgentError(
            "the agent has only just started and knows nothing yet", hint="try again in a moment"
        )
    return found


async def _verify(
    arguments: argparse.Namespace, peers: tuple[Address, ...], status: dict[str, Any]
) -> int:
    about = About(status.get("config", ""), arguments.socket)
    shows = sys.stderr.isatty()
    results: list[tuple[Observation, Finding]] = []
    _progress(peers, 0, shows=shows)
    async for seen in verify(peers, lambda: _status(arguments.socket), arguments.timeout):
        found = judge(seen)
        found = replace(found, hint=about.text(found.hint))
        results.append((seen, found))
        if shows:
            complain(CLEAR_LINE)
        if not arguments.json:
            sys.stdout.write(text(seen, found))
            sys.stdout.flush()
        _progress(peers, len(results), shows=shows)
    shown = document(entry(seen, found) for seen, found in results)
    if arguments.json:
        sys.stdout.write(json.dumps(shown) + "\n")
    elif len(results) > 1:
        proven = sum(found.verdict is Verdict.PROVEN for _, found in results)
        sys.stdout.write(f"{proven} of {several(len(results), 'peer')} proven\n")
    return 0 if shown["proven"] else 1


def _progress(peers: tuple[Address, ...], done: int, *, shows: bool) -> None:
    """Tell on a terminal what is waited for."""
    if shows and done < len(peers):
        count = f" ({done + 1} of {len(peers)})" if len(peers) > 1 else ""
        complain(f"sending to {peers[done]}{count} …")


def text(seen: Observation, found: Finding) -> str:
    """A verdict for a person."""
    lines = [f"{seen.pair.peer}  {found.verdict.value}: {found.message}"]
    lines += [f"  note: {note}" for note in found.notes]
    if found.hint:
        lines.append(f"  hint: {found.hint}")
    return "".join(f"{line}\n" for line in lines)
