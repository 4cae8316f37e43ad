"""Where the properties of ipsec stand: the rendered form, or the add-on's runtime config."""

from dataclasses import dataclass, field

from ipsec_agent.core.complaint import Complaints
from ipsec_agent.core.yaml_lines import Entry

RUNTIME_KEYS = frozenset(
    {"releases", "addons", "tags", "variables", "features", "exclude", "include"}
)


@dataclass(frozen=True, slots=True)
class Located:
    """The properties and the node section; each property with the key path that it was found at."""

    properties: dict[str, tuple[str, Entry]] = field(default_factory=dict)
    agent: Entry | None = None
    line: int = 1


def locate(root: Entry, known: frozenset[str], complaints: Complaints) -> Located | None:
    """Find the properties; None, with a complaint, where there are none."""
    if root.items is None:
        complaints.error(root.line, "", "a config is a mapping", "begin it with `ipsec:`")
        return None
    agent = root.get("agent")
    found: list[tuple[str, Entry]] = []
    if root.get("addons") is not None:
        found = _in_addons(root.items["addons"], known, complaints)
    for path, section in (("properties.ipsec", _inside(root, "properties")), ("ipsec", root)):
        ipsec = section.get("ipsec") if section else None
        if ipsec is not None:
            found.append((path, ipsec))
    _beside(root, "", known, complaints)
    _beside(root.get("properties"), "properties", known, complaints)
    _unknown_top(root, complaints)
    if not found:
        complaints.error(
            root.line,
            "",
            "there are no properties of ipsec here",
            "write them below `ipsec:`, or below `addons: … properties: ipsec:` as the guide shows",
        )
        return None
    properties: dict[str, tuple[str, Entry]] = {}
    for path, ipsec in found:
        if ipsec.items is None:
            complaints.error(
                ipsec.line, path, "this is no mapping", "write its properties below it"
            )
            continue
        properties.update({name: (f"{path}.{name}", item) for name, item in ipsec.items.items()})
    return Located(properties, agent, found[0][1].line)


def _inside(entry: Entry, key: str) -> Entry | None:
    return entry.get(key)


def _in_addons(
    addons: Entry, known: frozenset[str], complaints: Complaints
) -> list[tuple[str, Entry]]:
    """The properties of the add-on, then those of the job, which outrank them."""
    found = []
    for position, addon in enumerate(addons.elements or ()):
        path = f"addons[{position}]"
        _beside(addon, path, known, complaints)
        holders = [(path, addon)]
        jobs = addon.get("jobs")
        for index, job in enumerate((jobs.elements if jobs else None) or ()):
            name = job.get("name")
            if name is not None and name.value == "ipsec":
                holders.append((f"{path}.jobs[{index}]", job))
        for where, holder in holders:
            properties = holder.get("properties")
            _beside(properties, f"{where}.properties", known, complaints)
            ipsec = properties.get("ipsec") if properties else None
            if ipsec is not None:
                found.append((f"{where}.properties.ipsec", ipsec))
    return found


def _beside(holder: Entry | None, path: str, known: frozenset[str], complaints: Complaints) -> None:
    """Properties beside `ipsec:` instead of below it, as in the guide's second sample."""
    if holder is None or holder.items is None:
        return
    ipsec = holder.get("ipsec")
    for name, entry in holder.items.items():
        if name in known:
            wanted = (ipsec.column if ipsec else entry.column) + 2
            complaints.error(
                entry.line,
                f"{path}.{name}" if path else name,
                "this stands beside `ipsec:`, not below it",
                f"indent it and its text by {wanted - entry.column} more spaces",
            )


def _unknown_top(root: Entry, complaints: Complaints) -> None:
    for name, entry in (root.items or {}).items():
        if name not in {"ipsec", "properties", "agent", "jobs", "name", *RUNTIME_KEYS}:
            complaints.warn(entry.line, name, "this key is not known", "it is ignored")
