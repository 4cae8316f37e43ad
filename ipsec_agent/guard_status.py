"""The guard's state, read without an agent: the table, the saved file, and the config's wish."""

import enum
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.closed_table import CLOSED
from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.desired_guard import guard_of, lockouts
from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.inside import Words, find_inside
from ipsec_agent.core.lockout import Finding
from ipsec_agent.core.model import GUARD_TABLE
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.status import guard_counters
from ipsec_agent.errors import KernelError
from ipsec_agent.host.essential_addresses import read_own_essential_addresses
from ipsec_agent.host.ip_listing import read_addresses
from ipsec_agent.host.link_reading import LinkReading
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.saved_guard import saved_guard


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


class GuardStatus(Struct, frozen=True):
    """What was found.

    Attributes:
        closed_by: None while the table is no closed one.
        current: whether this is the config's table, None without a valid config.
        notes: what an operator should know or do, as sentences.
    """

    state: TableState
    table: GuardTable | None
    current: bool | None
    saved: Saved
    notes: tuple[str, ...]
    closed_by: ClosedBy | None = None


def lockouts_here(config: Config) -> tuple[tuple[Finding, ...], tuple[str, ...]]:
    """What this VM would lose by a config; for all its addresses, since every link is guarded.

    Returns:
        the findings, and the names of hosts that nobody can judge.
    """
    network = read_addresses()
    own = tuple(one.address for one in network.addresses)
    essential = read_own_essential_addresses()
    return lockouts(config, own, network.gateways, essential), essential.unresolved


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
    if table is not None and not table.mark:
        for text in filter(None, (wanted, CLOSED)):
            await _learn(nft, text, notes)
        table = await nft.read()
    state = _state(table)
    current = None if config is None else _current(table, wanted)
    notes += _notes(state, config, kept, wanted, current=current)
    closed_by = _closed_by(table)
    if closed_by is not None:
        notes.append(
            "the saved table did not load at boot, so only SSH and IPsec pass:"
            " run `ipsec-agent guard up`"
            if closed_by is ClosedBy.BOOT
            else "`guard up --closed` has closed this VM, or the table was changed since: correct"
            " the config and start the agent, or run `ipsec-agent guard up`"
        )
    held = table is not None and table.flow_rules is not None
    filtered = f"; table netdev {GUARD_TABLE} filters them" if held else ""
    notes += [
        f"flowtable {name} forwards connections past the guard{filtered}:"
        f" delete the rules with `flow add`, then run `nft delete flowtable {name}`"
        for name in (table.flowtables if table else ())
    ]
    return GuardStatus(state, table, current, saved, tuple(dict.fromkeys(notes)), closed_by)


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


def _state(table: GuardTable | None) -> TableState:
    if table is None:
        return TableState.MISSING
    if table.closed:
        return TableState.CLOSED
    return TableState.UP if table.mark else TableState.ALTERED


def _closed_by(table: GuardTable | None) -> ClosedBy | None:
    """The table of a boot is always the same; `guard up --closed` adds what this VM needs."""
    if table is None or not table.closed:
        return None
    return ClosedBy.BOOT if table.mark == mark(CLOSED) else ClosedBy.HAND


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
    if config is not None and wanted is None:
        notes.append("agent.guard is none: packets may leave in clear")
    elif state is TableState.MISSING:
        notes.append("packets may leave in clear: run `ipsec-agent guard up`")
    elif state is TableState.UP and current is False:
        notes.append(
            "the config has changed since this table was loaded: run `ipsec-agent guard up`"
        )
    elif state is TableState.ALTERED:
        notes.append("the table is not the one that ipsec-agent loaded: run `ipsec-agent guard up`")
    if wanted is not None and kept not in {None, wanted}:
        notes.append("the saved table is not the config's: run `ipsec-agent guard up` to save it")
    return notes


def reasons(config: Config | None) -> dict[str, str]:
    """Why links need no guard, by name, as far as this VM's kernel tells it now."""
    if config is None:
        return {}
    try:
        seen = LinkReading().read()
        network = replace(
            read_addresses(), links=seen.links, namespaces=seen.namespaces, number=seen.number
        )
    except KernelError:
        return {}
    words = Words(config.agent.uplinks, config.agent.inside)
    return {one.link.name: one.because for one in find_inside(network, Promise.of(config), words)}


def document(found: GuardStatus, path: Path, because: Mapping[str, str]) -> dict[str, Any]:
    """The status as JSON's types: a stable interface, versioned by `schema`.

    Args:
        because: why links need no guard, by name.
    """
    exempt = found.table.exempt if found.table else ()
    return {
        "schema": 1,
        "state": found.state.value,
        "closed_by": found.closed_by,
        "matches_config": found.current,
        "exempt": [link.name for link in exempt],
        "inside": [
            {
                "name": link.name,
                "reason": because.get(link.name, "it led to containers only before"),
            }
            for link in exempt
        ],
        "saved": {"path": str(path), "state": found.saved.value},
        **guard_counters(found.table),
        "notes": list(found.notes),
    }
