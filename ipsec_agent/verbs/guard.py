"""`ipsec-agent guard up|down|status`: the guard, with neither charon nor agent.

A running agent is asked to do it, since it would undo changes by others.
"""

import argparse
import asyncio
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from ipsec_agent.config_file import accepted, agent_of, load_config
from ipsec_agent.core.closed_table import closed_table
from ipsec_agent.core.commands import About
from ipsec_agent.core.config import AgentConfig, Config, GuardMode
from ipsec_agent.core.desired_guard import guard_of
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.guard_table import ruleset
from ipsec_agent.core.lockout import Finding, unknown_lockout, unknown_lockout_hint
from ipsec_agent.errors import ConfigError, StartError
from ipsec_agent.guard_status import (
    EXIT,
    document,
    lockouts_here,
    read_guard_status,
    warning_of_clear,
)
from ipsec_agent.host.control_client import NotRunningError, ask
from ipsec_agent.host.essential_addresses import read_own_essential_addresses
from ipsec_agent.host.files import make_directory
from ipsec_agent.host.nft import FORMS, Nft
from ipsec_agent.host.own_process import WARNING, complain, say
from ipsec_agent.host.saved_guard import NAME, save_guard
from ipsec_agent.verbs.commands import about, repeatable
from ipsec_agent.verbs.status_text import guard_lines

AGENT_DEADLINE = 30.0
"""Seconds within which a running agent must have done it; it takes one pass."""


def main(arguments: argparse.Namespace) -> int:
    """Do what was asked, and say what came of it."""
    return {"up": _up, "down": _down, "status": _status}[arguments.action](arguments)


def _up(arguments: argparse.Namespace) -> int:
    """Load the guard, now and at each boot; nothing is touched where that is refused."""
    if arguments.closed:
        return _close(arguments)
    try:
        config = load_config(Path(arguments.config), outdated=accepted)
    except ConfigError as error:
        return _up_without_config(arguments, error)
    if config.agent.guard is GuardMode.NONE:
        raise StartError(
            f"{arguments.config} says agent.guard: none",
            hint="remove that line to use the guard",
        )
    findings, unresolved = lockouts_here(config)
    refused = [finding for finding in findings if finding.refused]
    for finding in findings:
        louder = "REFUSED" if finding.refused and not arguments.force else "warning"
        complain(f"{louder}: {finding.message}\n  {repeatable(finding.hint, arguments)}\n")
    for name in unresolved:
        complain(f"warning: {unknown_lockout(name)}\n  {unknown_lockout_hint(name)}\n", WARNING)
    if refused and not arguments.force:
        raise StartError(
            "the guard would cut this VM off; nothing was changed",
            hint="add the lines shown above, or use --force",
        )
    saved = Path(config.agent.state_dir) / NAME
    socket = _socket(arguments, config.agent)
    try:
        answer = ask(socket, "guard-up", deadline=AGENT_DEADLINE, force=arguments.force)
    except NotRunningError:
        asyncio.run(_put_up(config.agent, ruleset(guard_of(config)), saved))
        how = "it covers every link but lo until an agent runs"
    else:
        _refuse_unless_up(answer, socket)
        how = "the running agent keeps it up"
    shown = {"schema": 1, "state": "up", "saved": str(saved), "findings": _told(findings)}
    _say(arguments, shown, f"the guard is up: {how}\nthe next boot loads {saved}")
    return 0


def _up_without_config(arguments: argparse.Namespace, error: ConfigError) -> int:
    """Have a running agent put up the guard of its config in force; without one, nothing.

    Who asks for the guard wants this VM closed, whatever the file is like. What closes it without a
    config cuts off much more, so that is only named.

    Raises:
        ConfigError: no agent runs.
    """
    agent = agent_of(error)
    socket = _socket(arguments, agent)
    try:
        answer = ask(socket, "guard-up", deadline=AGENT_DEADLINE, force=arguments.force)
    except NotRunningError:
        closed = asyncio.run(warning_of_clear(None, agent))
        error.hint = "; ".join(filter(None, (error.hint, closed)))
        raise error from None
    for complaint in error.complaints:
        complain(f"{repeatable(complaint, arguments)}\n")
    complain(f"warning: {error.message}; the agent goes on with the config in force\n", WARNING)
    _refuse_unless_up(answer, socket)
    _say(
        arguments,
        {"schema": 1, "state": "up", "saved": None, "findings": []},
        "the guard is up: the running agent keeps up that of the config in force",
    )
    return 0


def _refuse_unless_up(answer: dict[str, Any], socket: str) -> None:
    if not answer["guard_up"]:
        raise StartError("the agent could not load the guard", hint=_see_status(socket))


def _close(arguments: argparse.Namespace) -> int:
    """Close this VM but for what it takes to repair it; this needs no valid config."""
    socket = _socket(arguments, _agent_section(arguments.config))
    try:
        ask(socket, "health", deadline=AGENT_DEADLINE)
    except NotRunningError:
        pass
    else:
        raise StartError(
            "an agent runs, and would put the guard of its config in the place of this table",
            hint=_see_status(socket),
        )
    essential = read_own_essential_addresses()
    asyncio.run(Nft().load(closed_table(essential)))
    for name in essential.unresolved:
        complain(f"warning: {name} (BOSH) has no address now, and is cut off\n", WARNING)
    kept = [str(address) for address in (*essential.name_servers, *essential.directors)]
    _say(
        arguments,
        {"schema": 1, "state": "closed", "reachable": kept},
        f"this VM is closed: nothing passes but IPsec, SSH to port 22, {_reachable(essential)}\n"
        "until the agent starts, `guard up`, `guard down` or the next boot",
    )
    return 0


def _reachable(essential: EssentialAddresses) -> str:
    """What the closed table leaves beside IPsec and SSH, with the addresses that are known."""
    servers = ", ".join(map(str, essential.name_servers)) or "none found"
    nobody = "none has an address now" if essential.unresolved else "none found"
    bosh = ", ".join(map(str, essential.directors)) or nobody
    return f"DNS ({servers}), NTP, DHCP, the metadata service and BOSH ({bosh})"


async def _put_up(agent: AgentConfig, text: str, saved: Path) -> None:
    make_directory(Path(agent.run_dir))
    nft = _nft(agent)
    await nft.check(text)
    # What protects now is not held up by a disk that is full.
    try:
        save_guard(saved, text)
    finally:
        await nft.load(text)


def _down(arguments: argparse.Namespace) -> int:
    """Remove the guard; the file stays, so that the next boot is guarded again."""
    agent = _agent_section(arguments.config)
    socket = _socket(arguments, agent)
    try:
        answer = ask(socket, "guard-down", deadline=AGENT_DEADLINE)
    except NotRunningError:
        asyncio.run(_nft(agent).delete())
        until = "until `guard up`, the next start of the agent or the next boot"
    else:
        if answer["guard_up"]:
            raise StartError(
                "the agent could not remove the guard",
                hint=_see_status(socket),
            )
        until = "until `guard up` or the agent's next start"
    _say(
        arguments,
        {"schema": 1, "state": "missing", "until": until},
        f"the guard is down {until}: packets may leave in clear",
    )
    return 0


def _status(arguments: argparse.Namespace) -> int:
    """Show the guard; 0 up, 1 otherwise, 3 where there is none."""
    config, refusal = _config(arguments.config)
    agent = _agent(config, refusal)
    saved = Path(agent.state_dir) / NAME
    found = asyncio.run(read_guard_status(_nft(agent), config, saved))
    shown = document(found, saved)
    if refusal is not None:
        shown["notes"].append(f"{refusal.message}; the table cannot be compared with it")
    said = about(arguments, _default_socket(agent))
    shown["notes"] = [said.text(note) for note in shown["notes"]]
    lines = guard_lines(shown)
    lines.append(f"saved      {saved}: {shown['saved']['state']}")
    lines += [f"  not guarded: {one['name']} ({one['reason']})" for one in shown["inside"]]
    lines += [f"  note: {note}" for note in shown["notes"]]
    _say(arguments, shown, said.text("\n".join(lines)))
    return EXIT[found.state] or int(found.current is False)


def _nft(agent: AgentConfig) -> Nft:
    return Nft(Path(agent.run_dir) / FORMS)


def _told(findings: Iterable[Finding]) -> list[dict[str, Any]]:
    return [
        {
            "address": str(finding.address),
            "roles": list(finding.roles),
            "refused": finding.refused,
            "message": finding.message,
            "line": finding.line,
        }
        for finding in findings
    ]


def _config(path: str) -> tuple[Config | None, ConfigError | None]:
    try:
        return load_config(Path(path), outdated=accepted), None
    except ConfigError as error:
        return None, error


def _agent_section(path: str) -> AgentConfig:
    """Where things are; of a config that cannot be read, where they usually are."""
    return _agent(*_config(path))


def _agent(config: Config | None, refusal: ConfigError | None) -> AgentConfig:
    if config is not None:
        return config.agent
    return agent_of(refusal) if refusal else AgentConfig()


def _socket(arguments: argparse.Namespace, agent: AgentConfig) -> str:
    return arguments.socket or _default_socket(agent)


def _see_status(socket: str) -> str:
    return About(socket=socket).text("see `ipsec-agent status`")


def _default_socket(agent: AgentConfig) -> str:
    return f"{agent.run_dir}/control.sock"


def _say(arguments: argparse.Namespace, shown: dict[str, Any], text: str) -> None:
    say((json.dumps(shown) if arguments.json else text) + "\n")
