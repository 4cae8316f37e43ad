"""The guard's state, read without an agent: the table, the saved file, and the config's wish."""

import asyncio
import contextlib
import enum
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

from msgspec import Struct

from ipsec_agent.core.closed_table import CLOSED, closed_table
from ipsec_agent.core.config import AgentConfig, Config, GuardMode
from ipsec_agent.core.desired_guard import guard_of, lockouts
from ipsec_agent.core.guard import exempt_links, overlay_ports
from ipsec_agent.core.guard_table import enforces, mark, ruleset
from ipsec_agent.core.lockout import Finding
from ipsec_agent.core.model import GUARD_TABLE, LinkId
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.placement import Placement, place
from ipsec_agent.core.problems.problem import listed
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.status import guard_counters
from ipsec_agent.errors import AgentError, ConfigError, KernelError
from ipsec_agent.host.essential_addresses import read_own_essential_addresses
from ipsec_agent.host.link_reading import LinkReading
from ipsec_agent.host.links import read_facts
from ipsec_agent.host.nft import FORMS, Nft
from ipsec_agent.host.nft_refusals import owner
from ipsec_agent.host.program import find_program
from ipsec_agent.host.route_records import read_network
from ipsec_agent.host.saved_guard import NAME, saved_guard


class TableState(enum.StrEnum):
    """The table in the kernel."""

    UP = "up"
    MISSING = "missing"
    ALTERED = "altered"
    CLOSED = "closed"


class ClosedBy(enum.StrEnum):
    """Who has closed this VM."""

    BOOT = "boot"
    HAND = "hand"


class Saved(enum.StrEnum):
    """What the next boot loads."""

    GOOD = "good"
    MISSING = "missing"
    BROKEN = "does not load"


EXIT = {TableState.UP: 0, TableState.MISSING: 3, TableState.ALTERED: 1, TableState.CLOSED: 1}
"""Exit codes, in the manner of LSB's `status`."""

HOLDING = frozenset({TableState.UP, TableState.CLOSED})
"""What lets no clear packet pass between encrypted VMs."""

AGAIN = 0.25
"""Seconds until a second look at links that seem wrongly exempt."""

UNVERIFIED = "not verified: config or links cannot be read"
STRAY = "nothing says that it leads to this VM's own containers only"
GONE = "there is no such link any more"


class GuardStatus(Struct, frozen=True):
    """What was found.

    Attributes:
        closed_by: None while the table is no closed one.
        exempt: why each exempt link is so, by name, as far as this can be told without an agent.
        current: whether this is the config's table, None without a valid config.
        notes: what an operator should know or do, as sentences.
        drops: it is known to drop what is clear, rather than only count it.
    """

    state: TableState
    table: GuardTable | None
    current: bool | None
    saved: Saved
    notes: tuple[str, ...]
    closed_by: ClosedBy | None = None
    exempt: Mapping[str, str] = MappingProxyType({})
    drops: bool = False


def lockouts_here(config: Config) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What this VM would lose by a config; for all its addresses, since every link is guarded.

    Returns:
        the findings, and the names of hosts that nobody can judge.
    """
    network = read_network()
    own = tuple(one.address for one in network.addresses)
    essential = read_own_essential_addresses()
    return lockouts(config, own, network.gateways, essential), essential.unresolved


_CLOSED = {
    ClosedBy.BOOT: "the saved table did not load at boot, so only SSH and IPsec pass:"
    " run `ipsec-agent guard up`",
    ClosedBy.HAND: "`guard up --closed` has closed this VM: correct the config and start the"
    " agent, or run `ipsec-agent guard up`",
}


async def read_guard_status(nft: Nft, config: Config | None, path: Path) -> GuardStatus:
    """Compare the table with everything that may have made it.

    Args:
        nft: remembers what an agent, or `guard up`, has loaded.
        config: None where it is refused.
        path: the file that the next boot loads.

    Raises:
        KernelError: the table cannot be read.
        StartError: the file cannot be read.
    """
    wanted = None
    if config is not None and config.agent.guard is GuardMode.ENFORCE:
        wanted = ruleset(guard_of(config))
    kept = saved_guard(path)
    notes: list[str] = []
    saved = await _saved(nft, kept, path, notes)
    table = await nft.read()
    closed = _closed_texts() if table is not None and table.closed else ()
    if table is not None and not table.mark:
        texts = (*closed, wanted) if table.closed else (wanted,)
        for text in filter(None, texts):
            await _learn(nft, text, notes)
        table = await nft.read()
    state = _state(table, frozenset(map(mark, closed)))
    exempt: Mapping[str, str] = {}
    wrong = ""
    if table is not None and state is TableState.UP and table.exempt:
        exempt, wrong = await _exempt(nft, config, table)
        wrong = wrong and f"{wrong}: run `ipsec-agent guard up`"
        notes += filter(None, (wrong, _unverified(exempt)))
    current = None if config is None else _current(table, wanted)
    notes += _notes(state, config, kept, wanted, current=current)
    state = TableState.ALTERED if wrong else state
    closed_by = _closed_by(table, state)
    if closed_by is not None:
        notes.append(_CLOSED[closed_by])
    held = table is not None and table.flow_rules is not None
    filtered = f"; table netdev {GUARD_TABLE} filters them" if held else ""
    notes += [
        f"flowtable {name} forwards connections past the guard{filtered}:"
        f" delete the rules with `flow add`, then run `nft delete flowtable {name}`"
        for name in (table.flowtables if table else ())
    ]
    notes = list(dict.fromkeys(notes))
    drops = state is TableState.CLOSED or _drops(table, (wanted, kept))
    return GuardStatus(state, table, current, saved, tuple(notes), closed_by, exempt, drops)


async def warning_of_clear(config: Config | None, agent: AgentConfig) -> str:
    """What to say where nothing holds clear packets back, and what closes this VM; "" elsewhere.

    Args:
        config: None where it is refused.
        agent: where things are.
    """
    nft, saved = Nft(Path(agent.run_dir) / FORMS), Path(agent.state_dir) / NAME
    try:
        found = await read_guard_status(nft, config, saved)
    except AgentError:
        return ""
    if found.state in HOLDING:
        return ""
    what = (
        "no guard is loaded"
        if found.state is TableState.MISSING
        else "the guard is not as the agent makes it (`ipsec-agent guard status`)"
    )
    installed = "" if find_program("nft") else "once nftables is installed, "
    return (
        f"{what}, so packets may travel in clear: {installed}`ipsec-agent guard up"
        " --closed` lets pass only IPsec and what it takes to repair this VM"
    )


def _closed_texts() -> tuple[str, ...]:
    """What makes a closed table here: that of a boot, and that of `guard up --closed`."""
    return CLOSED, closed_table(read_own_essential_addresses())


async def _saved(nft: Nft, kept: str | None, path: Path, notes: list[str]) -> Saved:
    if kept is None:
        notes.append("no table is saved: the next boot has no guard until the agent starts")
        return Saved.MISSING
    because = ""
    try:
        await nft.check(kept)
    except KernelError as error:
        because = error.message
    else:
        await _learn(nft, kept, notes)
        if nft.form_of(kept) == "":
            because = "it contains no table"
    if because:
        notes.append(f"{path}: {because}; the next boot will be closed except for SSH")
        return Saved.BROKEN
    return Saved.GOOD


async def _learn(nft: Nft, text: str, notes: list[str]) -> None:
    try:
        await nft.learn(text)
    except KernelError as error:
        notes.append(f"the table cannot be compared: {error.message}")


def _state(table: GuardTable | None, closed: Collection[str]) -> TableState:
    """What the table is.

    Args:
        closed: marks of what makes a closed table here.
    """
    if table is None:
        return TableState.MISSING
    if table.closed:
        # Anybody may name a chain as a closed table does.
        return TableState.CLOSED if table.mark in closed else TableState.ALTERED
    return TableState.UP if table.mark else TableState.ALTERED


def _closed_by(table: GuardTable | None, state: TableState) -> ClosedBy | None:
    """The table of a boot is always the same; `guard up --closed` adds what this VM needs."""
    if table is None or state is not TableState.CLOSED:
        return None
    return ClosedBy.BOOT if table.mark == mark(CLOSED) else ClosedBy.HAND


def _drops(table: GuardTable | None, texts: Iterable[str | None]) -> bool:
    """Whether one of these texts is known to have made the table, and drops what is clear."""
    known = (text for text in texts if text and table and table.mark == mark(text))
    return any(map(enforces, known))


def _current(table: GuardTable | None, wanted: str | None) -> bool:
    if table is None or wanted is None:
        return table is None and wanted is None
    return table.mark == mark(wanted)


def _notes(
    state: TableState,
    config: Config | None,
    kept: str | None,
    wanted: str | None,
    *,
    current: bool | None,
) -> list[str]:
    notes = []
    if config is not None and config.optional and current:
        notes.append("IPsec is optional (optional: true): the table counts clear packets only")
    if config is not None and wanted is None:
        notes.append("agent.guard is none: packets may leave in clear")
    elif state is TableState.MISSING:
        up = "guard up" if config is not None else "guard up --closed"
        notes.append(f"packets may leave in clear: run `ipsec-agent {up}`")
    elif state is TableState.UP and current is False:
        notes.append(
            "the config has changed since this table was loaded: run `ipsec-agent guard up`;"
            " or another version of ipsec-agent loaded it: restart the agent"
        )
    elif state is TableState.ALTERED:
        owned = owner()
        notes.append(
            f"{owned[0]}: {owned[1]}"
            if owned
            else "the guard's table was changed and may let clear packets pass: run"
            " `ipsec-agent guard up` to load it again"
        )
    if wanted is not None and kept not in {None, wanted}:
        notes.append("the saved table is not the config's: run `ipsec-agent guard up` to save it")
    return notes


async def _exempt(nft: Nft, config: Config | None, table: GuardTable) -> tuple[dict[str, str], str]:
    """Why each exempt link is so, and what is wrong with them, "" where nothing is.

    A running agent takes back at once what a change of links forbids: a second look tells whether
    it has.
    """
    unverified = dict.fromkeys(map(str, table.exempt), UNVERIFIED), ""
    if config is None:
        return unverified
    try:
        said = judge_exempt(config, _network(), table)
        if said[1]:
            await asyncio.sleep(AGAIN)
            said = judge_exempt(config, _network(), await nft.read() or table)
    except KernelError:
        return unverified
    return said


def _unverified(reasons: Mapping[str, str]) -> str:
    names = sorted(name for name, why in reasons.items() if why is UNVERIFIED)
    return f"where {listed(names)} leads is not verified" if names else ""


def judge_exempt(
    config: Config, network: NetworkFacts, table: GuardTable
) -> tuple[dict[str, str], str]:
    """Compare a table's exempt links with those that an agent would exempt now.

    Returns:
        why each is exempt, by name, and what is wrong, "" where nothing is.
    """
    placement: Placement | None = None
    with contextlib.suppress(ConfigError):
        placement = place(config.agent, Promise.of(config), network)
    allowed = exempt_links(placement) if placement else ()
    ports = overlay_ports(placement) if placement else ()
    because = {one.key: one.because for one in (placement.inside if placement else ())}
    there = {LinkId(link.index, link.name) for link in network.links}
    reasons = {
        link.name: because[link] if link in allowed else STRAY if link in there else GONE
        for link in table.exempt
    }
    stray = [name for name, why in reasons.items() if why is STRAY]
    if stray:
        return reasons, (
            f"the guard does not cover {listed(stray)}, though nothing says that this leads to this"
            " VM's own containers only: clear packets may pass there"
        )
    if table.exempt == allowed and not set(ports) <= set(table.overlay_ports):
        return reasons, "the guard lacks the UDP port of a tunnel that it does not cover"
    return reasons, ""


def _network() -> NetworkFacts:
    """Links and addresses as the kernel tells of them now.

    Raises:
        KernelError: it does not.
    """
    return read_facts(LinkReading())


def document(found: GuardStatus, path: Path) -> dict[str, Any]:
    """The status as JSON's types: a stable interface, versioned by `schema`."""
    exempt = found.table.exempt if found.table else ()
    return {
        "schema": 1,
        "state": found.state.value,
        "closed_by": found.closed_by,
        "matches_config": found.current,
        "drops": found.drops,
        "exempt": [link.name for link in exempt],
        "inside": [
            {
                "name": link.name,
                "reason": found.exempt.get(link.name, UNVERIFIED),
            }
            for link in exempt
        ],
        "saved": {"path": str(path), "state": found.saved.value},
        **guard_counters(found.table),
        "notes": list(found.notes),
    }
