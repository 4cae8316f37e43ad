"""What `nft -j` says of the guard's table, read into our records. No program, no socket.

The JSON is that of libnftables-json(5). A table is told from an altered one by its form: a digest
of what a load can say of tables, chains, sets and rules, without counter values and what packets
add by themselves. What else nft lists (1.1.7 adds a set's `count`) is no part of it. nft writes
the same form when it echoes a load (`-e`) as when it lists the table.
"""

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from ipaddress import ip_address
from typing import Any

from ipsec_agent.core.model import LinkId
from ipsec_agent.core.observed_guard import ClearLink, ClearPeer, GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.understood import understood

_FIXED = ("outside4", "outside6", "listed4", "listed6")
"""The sets whose elements belong to the form. Links come and go, the rest are counters."""

_WRITTEN: Mapping[str, frozenset[str]] = {
    "table": frozenset({"family", "name", "flags"}),
    "chain": frozenset({"family", "table", "name", "type", "hook", "prio", "policy", "dev"}),
    "set": frozenset(
        {"family", "table", "name", "type", "flags", "timeout", "size", "policy", "stmt"}
    ),
    "rule": frozenset({"family", "table", "chain", "expr", "comment"}),
}
"""What of each kind belongs to the form. Another kind does nothing unless a rule names it."""

_DROPS_IN = (
    "clear_in4", "clear_in6", "tunnel_in4", "tunnel_in6", "disguised_in", "closed_in",
    "overlay_in4", "overlay_in6",
)  # fmt: skip
_DROPS_OUT = (
    "clear_out4", "clear_out6", "tunnel_out4", "tunnel_out6", "misplaced4", "misplaced6",
    "disguised_out", "overlay_out4", "overlay_out6", "closed_out",
)  # fmt: skip
"""The chains that drop, with a counter."""


_COUNTER = re.compile(r"counter packets (\d+) bytes \d+")


def read_form(text: str) -> str | None:
    """The form of a listing, or of the echo of a load; None where it has no rules.

    Raises:
        KernelError: this is not nft's JSON.
    """
    with _understood():
        return _form(list(_objects(text)))


def read_table(text: str, links: Mapping[str, int]) -> GuardTable:
    """The table of a listing; one that breaks off is that of an altered table.

    nft 1.0.6 breaks off, and ends with 0, at the flags of a table that somebody made dormant.

    Args:
        text: what `nft -j list table` wrote.
        links: index by name; nft writes the name for the index of a link that exists.

    Raises:
        KernelError: this is not nft's JSON.
    """
    try:
        return _table(text, links)
    except KernelError as error:
        if _breaks_off(text, error.__cause__):
            return GuardTable(form="")
        raise


def read_flowtables(text: str) -> tuple[str, ...]:
    """The flowtables that have links, each as "FAMILY TABLE NAME".

    Args:
        text: what `nft -j list flowtables` wrote.

    Raises:
        KernelError: this is not nft's JSON.
    """
    with _understood():
        return tuple(
            f"{value['family']} {value['table']} {value['name']}"
            for kind, value in _objects(text)
            if kind == "flowtable" and value.get("dev")
        )


def read_flow_rules(text: str) -> tuple[str, int]:
    """Form and dropped packets of the table beside flowtables.

    As text, since nft 1.0.6 does not tell the links of a chain as JSON.

    Args:
        text: what `nft list table` wrote.

    Raises:
        KernelError: this is not nft's text.
    """
    with _understood():
        form = hashlib.sha256(_COUNTER.sub("counter", text).encode()).hexdigest()
        return form, sum(int(packets) for packets in _COUNTER.findall(text))


def _table(text: str, links: Mapping[str, int]) -> GuardTable:
    with _understood():
        objects = list(_objects(text))
        sets = {value["name"]: value for kind, value in objects if kind == "set"}
        chains = {value["name"] for kind, value in objects if kind == "chain"}
        return GuardTable(
            form=_form(objects) or "",
            exempt=tuple(sorted(_link_ids(sets, links))),
            overlay_ports=tuple(sorted(map(int, _elements(sets, "overlay_ports")))),
            dropped_in=_dropped(objects, _DROPS_IN),
            dropped_out=_dropped(objects, _DROPS_OUT),
            tunnelled_in=_dropped(objects, ("tunnel_in4", "tunnel_in6")),
            tunnelled_out=_dropped(objects, ("tunnel_out4", "tunnel_out6")),
            disguised_in=_dropped(objects, ("disguised_in",)),
            disguised_out=_dropped(objects, ("disguised_out",)),
            clear_in=_peers(sets, "clear_in"),
            clear_out=_peers(sets, "clear_out"),
            misplaced=_peers(sets, "misplaced"),
            untranslated=_peers(sets, "untranslated"),
            tunnelled=_peers(sets, "tunnel"),
            unjudged=_links(sets),
            closed="closed_out" in chains,
        )


def _breaks_off(text: str, cause: BaseException | None) -> bool:
    return (
        isinstance(cause, json.JSONDecodeError)
        and text.startswith('{"nftables": [{"metainfo"')
        and cause.pos >= len(text.rstrip())
    )


def _understood() -> AbstractContextManager[None]:
    """Turn whatever a listing lacks into one sentence."""
    return understood(
        lambda error: KernelError(
            f"cannot understand nft's listing of the guard: {error}",
            hint="use nftables 0.9.6 or newer; see `nft --version`",
        )
    )


def _objects(text: str) -> Iterator[tuple[str, dict[str, Any]]]:
    for entry in json.loads(text)["nftables"]:
        ((kind, value),) = entry.get("add", entry).items()
        if kind != "metainfo":
            yield kind, value


def _form(objects: list[tuple[str, dict[str, Any]]]) -> str | None:
    named: dict[str, Any] = {}
    rules: dict[str, list[Any]] = {}
    elements: dict[str, list[str]] = {name: [] for name in _FIXED}
    for kind, value in objects:
        written = _WRITTEN.get(kind, frozenset())
        kept = {key: _uncounted(value[key]) for key in written if key in value}
        if kind == "rule":
            rules.setdefault(value["chain"], []).append(kept)
        elif written:
            # The echo of a replacement names the table twice.
            named[f"{kind} {value['name']}"] = kept
        if kind in {"set", "element"} and value.get("name") in elements and "elem" in value:
            found = value["elem"]
            found = found["set"] if isinstance(found, dict) else found
            elements[value["name"]] += [json.dumps(item, sort_keys=True) for item in found]
    if not rules:
        return None
    whole = [named, rules, {name: sorted(found) for name, found in elements.items()}]
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()[:32]


def _uncounted(value: Any) -> Any:
    """The same without counter values."""
    if isinstance(value, dict):
        return {key: None if key == "counter" else _uncounted(item) for key, item in value.items()}
    if isinstance(value, list):
        return [_uncounted(item) for item in value]
    return value


def _elements(sets: Mapping[str, dict[str, Any]], name: str) -> list[Any]:
    found = sets.get(name, {}).get("elem", [])
    return found if isinstance(found, list) else []


def _index(name: str | int, links: Mapping[str, int]) -> int:
    """The index, 0 for a link that was renamed in between."""
    text = str(name)
    return links.get(text, int(text) if text.isdecimal() else 0)


def _link_ids(sets: Mapping[str, dict[str, Any]], links: Mapping[str, int]) -> Iterator[LinkId]:
    """The exempt links; of a table of another version, which had indexes only, without names."""
    for element in _elements(sets, "exempt"):
        if isinstance(element, dict):
            index, name = element["concat"]
            yield LinkId(_index(index, links), str(name))
        else:
            yield LinkId(_index(element, links), "")


def _counted(sets: Mapping[str, dict[str, Any]], name: str) -> Iterator[tuple[str, int, int, int]]:
    """Key, packets, bytes and seconds of silence of each element."""
    for entry in _elements(sets, name):
        element = entry["elem"]
        counter = element["counter"]
        lifetime = int(element.get("timeout", sets[name].get("timeout", 0)))
        idle = max(0, lifetime - int(element.get("expires", lifetime)))
        yield str(element["val"]), int(counter["packets"]), int(counter["bytes"]), idle


def _peers(sets: Mapping[str, dict[str, Any]], name: str) -> tuple[ClearPeer, ...]:
    return tuple(
        sorted(
            (
                ClearPeer(ip_address(key), packets, size, idle)
                for family in ("4", "6")
                for key, packets, size, idle in _counted(sets, name + family)
            ),
            key=lambda peer: (peer.address.version, int(peer.address)),
        )
    )


def _links(sets: Mapping[str, dict[str, Any]]) -> tuple[ClearLink, ...]:
    found: dict[str, ClearLink] = {}
    for name in ("unjudged_in", "unjudged_out"):
        for key, packets, size, idle in _counted(sets, name):
            old = found.get(key, ClearLink(key, 0, 0, idle))
            found[key] = ClearLink(
                key, old.packets + packets, old.bytes + size, min(old.idle, idle)
            )
    return tuple(found[key] for key in sorted(found))


def _dropped(objects: list[tuple[str, dict[str, Any]]], chains: tuple[str, ...]) -> int:
    return sum(
        int(part["counter"]["packets"])
        for kind, value in objects
        if kind == "rule" and value["chain"] in chains
        for part in value["expr"]
        if isinstance(part.get("counter"), dict)
    )
