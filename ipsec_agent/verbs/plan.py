"""`ipsec-agent plan`: what a VM would enforce, from the config alone."""

import argparse
import json
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ipsec_agent.config_file import accepted, load_config
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import guard_of
from ipsec_agent.core.guard import explain
from ipsec_agent.core.model import Action, Address
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.promise import Flow, Promise
from ipsec_agent.core.words import OPTIONAL
from ipsec_agent.errors import AgentError, UsageError
from ipsec_agent.host.own_process import say

SCHEMA = 1

ITSELF = Flow(Action.PASS, "it is this VM's own address, and no packet leaves for it")
OPTIONALLY = ", and IPsec is optional (optional: true)"
"""Why a flow may travel in clear that is to be encrypted."""


def main(arguments: argparse.Namespace) -> int:
    """Print the plan."""
    config = load_config(Path(arguments.file), outdated=accepted)
    address = _address(arguments.address) or config.agent.address
    if address is None:
        raise AgentError(
            "the VM's address is missing", hint="add --address IP, or write agent.address"
        )
    target = _address(arguments.to)
    if target is not None and target.version != address.version:
        # Where the config has the other one, the command alone cannot tell.
        refused = UsageError if arguments.address else AgentError
        raise refused(
            f"--to: {target} is IPv{target.version}, and the VM's {address} is"
            f" IPv{address.version}",
            hint=f"give an IPv{target.version} address of the VM with --address",
        )
    shown = document(config, address, target)
    if arguments.json:
        say(json.dumps(shown, indent=2) + "\n")
    else:
        say(_text(shown))
    return 0


def document(config: Config, address: Address, target: Address | None) -> dict[str, Any]:
    """The plan as JSON's types: a stable interface, versioned by `schema`."""
    wanted = desired(config, Placement(address, (address,)))
    shown: dict[str, Any] = {
        "schema": SCHEMA,
        "address": str(address),
        "role": wanted.role.value,
        "connections": [
            {
                "name": connection.name,
                "remote": str(connection.remote),
                "action": connection.action.shown,
            }
            for connection in wanted.connections
        ],
        "guard": _guard(config),
        "notes": [*wanted.notes, *([f"optional: true: {OPTIONAL}"] if config.optional else [])],
    }
    if target is not None:
        flow = Promise.of(config).flow(address, target) if target != address else ITSELF
        loose = config.optional and flow.action is Action.ENCRYPT
        shown["flow"] = {
            "to": str(target),
            "action": flow.action.shown,
            "reason": flow.because,
            "because": flow.because + (OPTIONALLY if loose else ""),
        }
    return shown


def _guard(config: Config) -> list[str]:
    """What the guard does on every VM with this config."""
    if config.agent.guard is GuardMode.NONE:
        return ["none (agent.guard: none)"]
    return list(explain(guard_of(config)))


def _address(text: str | None) -> Address | None:
    return None if text is None else ip_address(text)


def _text(shown: dict[str, Any]) -> str:
    lines = [f"{shown['address']} ({shown['role']})"]
    lines += [
        f"  {connection['action']:8} {connection['remote']:24} {connection['name']}"
        for connection in shown["connections"]
    ]
    lines += [f"  guard: {sentence}" for sentence in shown["guard"]]
    lines += [f"  note: {note}" for note in shown["notes"]]
    if "flow" in shown:
        flow = shown["flow"]
        how = flow["action"]
        if flow["because"] != flow["reason"]:
            how = "encrypt where the peer does, else clear"
        lines.append(f"to {flow['to']}: {how}, because {flow['because']}")
    return "\n".join(lines) + "\n"
