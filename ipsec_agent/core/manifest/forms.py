"""Where the ipsec properties are: the rendered form, or the add-on's runtime config."""

from collections.abc import Iterable, Iterator

from msgspec import Struct, field

from ipsec_agent.core.manifest.complaint import Complaints, shown_key
from ipsec_agent.core.manifest.fields import nearest
from ipsec_agent.core.manifest.yaml_lines import Entry

RUNTIME_KEYS = frozenset(
    {"releases", "addons", "tags", "variables", "features", "exclude", "include"}
)
ADDON_KEYS = frozenset({"jobs", "name", "properties"})
TOP_KEYS = frozenset({"ipsec", "agent", *ADDON_KEYS, *RUNTIME_KEYS})
JOB = "ipsec"
"""The guide: "Do not change the name of this job"."""


class Located(Struct, frozen=True):
    """The properties and the node section.

    Attributes:
        properties: each with the key path that it was found at.
        line: of the mapping of the properties.
        path: of the mapping of the properties.
    """

    properties: dict[str, tuple[str, Entry]] = field(default_factory=dict)
    agent: Entry | None = None
    line: int = 1
    path: str = "ipsec"


class _Section(Struct, frozen=True):
    """The mapping `ipsec:` and its parent, which may lack it.

    Attributes:
        path: of the mapping that holds `ipsec:`, "" for the file.
    """

    path: str
    holder: Entry
    ipsec: Entry | None

    def path_of(self, name: str) -> str:
        """The key path of an entry of the holder."""
        return f"{self.path}.{name}" if self.path else name


def locate(root: Entry, known: frozenset[str], complaints: Complaints) -> Located | None:
    """Find the properties; None, with a complaint, where there are none.

    Args:
        known: the names of all properties; those one level too high are reported, and read as if
            they were in the right place.
    """
    if root.items is None:
        complaints.error(root.line, "", "the config must be a mapping", "start it with `ipsec:`")
        return None
    _unknown_top(root, known, complaints)
    sections = [*_in_addons(root, complaints), *_at_top(root, complaints)]
    holding = [one for one in sections if one.ipsec is not None]
    ipsec = holding[0].ipsec if holding else None
    if ipsec is None and not any(known & set(one.holder.items or {}) for one in sections):
        complaints.error(
            root.line,
            "",
            "no ipsec properties found",
            "nest them under `ipsec:`, or under `addons: … properties: ipsec:` as the guide shows",
        )
        return None
    properties: dict[str, tuple[str, Entry]] = {}
    for section in sections:
        properties |= _below(section, complaints)
        properties |= _beside(section, ipsec, known, complaints)
    if not properties:
        return None
    line = ipsec.line if ipsec is not None else root.line
    path = holding[0].path_of("ipsec") if holding else "ipsec"
    return Located(properties, root.get("agent"), line, path)


def _below(section: _Section, complaints: Complaints) -> dict[str, tuple[str, Entry]]:
    ipsec = section.ipsec
    if ipsec is None:
        return {}
    path = section.path_of("ipsec")
    if ipsec.items is None:
        complaints.error(
            ipsec.line, path, "must be a mapping", "write its properties indented below it"
        )
        return {}
    return {name: (f"{path}.{shown_key(name)}", item) for name, item in ipsec.items.items()}


def _beside(
    section: _Section, ipsec: Entry | None, known: frozenset[str], complaints: Complaints
) -> dict[str, tuple[str, Entry]]:
    """Properties beside `ipsec:` instead of below it, as in the guide's second sample."""
    found = {
        name: (section.path_of(name), item)
        for name, item in (section.holder.items or {}).items()
        if name in known
    }
    if not found:
        return {}
    if ipsec is not None:
        for path, item in found.values():
            deeper = max(ipsec.column + 2 - item.column, 2)
            complaints.error(
                item.line,
                path,
                "must be nested under `ipsec:`",
                _move(item.line, item.last, deeper),
            )
        return found
    first = min(item.line for _, item in found.values())
    last = max(item.last for _, item in found.values())
    complaints.error(
        first,
        section.path_of(next(iter(found))),
        "the properties must be nested under `ipsec:`",
        f"add the line `ipsec:` above this one, and {_move(first, last, 2)}",
    )
    return found


def _move(first: int, last: int, spaces: int) -> str:
    lines = f"lines {first} to {last}" if last > first else "this line"
    return f"indent {lines} by {spaces} more spaces"


def _at_top(root: Entry, complaints: Complaints) -> Iterator[_Section]:
    """The rendered forms."""
    places = [("", root)]
    properties = root.get("properties")
    if properties is not None:
        places.insert(0, ("properties", properties))
    yield from (_Section(path, holder, holder.get("ipsec")) for path, holder in places)
    addons = root.get("addons")
    if addons is None:
        return
    for name in ("jobs", "properties"):
        entry = root.get(name)
        if entry is not None:
            complaints.error(
                entry.line,
                name,
                "must be nested under an add-on of `addons:`",
                _move(entry.line, entry.last, 2),
            )
    ipsec = root.get("ipsec")
    if ipsec is not None:
        complaints.error(
            ipsec.line,
            "ipsec",
            "the file has both `addons:` and `ipsec:`",
            "keep one of them: the runtime config, or the properties of this VM",
        )


def _in_addons(root: Entry, complaints: Complaints) -> Iterator[_Section]:
    """Those of the add-on with the job ipsec, then those of the job, which outrank them."""
    addons = root.get("addons")
    if addons is None or addons.empty:
        return
    if addons.elements is None:
        complaints.error(
            addons.line, "addons", "must be a list", 'write "- " before `name:` of the add-on'
        )
    earlier = 0
    for position, addon in enumerate(addons.elements or (addons,)):
        path = f"addons[{position}]"
        jobs = addon.get("jobs")
        named = [
            (f"{path}.jobs[{index}]", job)
            for index, job in enumerate((jobs.elements if jobs is not None else None) or ())
            if _named(job)
        ]
        if not named and not _without_job(addon, path, complaints):
            continue
        if earlier:
            complaints.error(
                addon.line,
                path,
                f"the job ipsec is listed twice, here and in the add-on of line {earlier}",
                "keep the one for this VM",
            )
            continue
        earlier = addon.line
        yield from _of_addon(addon, path, complaints)
        for where, job in named:
            yield from _properties(job, where)


def _of_addon(addon: Entry, path: str, complaints: Complaints) -> Iterator[_Section]:
    ipsec = addon.get("ipsec")
    if ipsec is not None:
        complaints.error(
            ipsec.line,
            f"{path}.ipsec",
            "must be nested under `properties:`",
            "add the line `properties:` above this one, and " + _move(ipsec.line, ipsec.last, 2),
        )
    yield _Section(path, addon, ipsec)
    yield from _properties(addon, path)


def _properties(holder: Entry, path: str) -> Iterator[_Section]:
    properties = holder.get("properties")
    if properties is not None:
        yield _Section(f"{path}.properties", properties, properties.get("ipsec"))


def _named(job: Entry) -> bool:
    name = job.get("name")
    return name is not None and name.value == JOB


def _without_job(addon: Entry, path: str, complaints: Complaints) -> bool:
    """Whether an add-on gives properties of ipsec to no job of that name; then a complaint."""
    properties = addon.get("properties")
    given = properties is not None and properties.get("ipsec") is not None
    if given:
        complaints.error(
            addon.line,
            f"{path}.jobs",
            "no job of this add-on is named ipsec",
            "write `- name: ipsec` and `release: ipsec` below `jobs:`; the name must stay ipsec",
        )
    return given


def _unknown_top(root: Entry, known: Iterable[str], complaints: Complaints) -> None:
    for name, entry in (root.items or {}).items():
        if name not in TOP_KEYS and name not in known:
            complaints.warn(entry.line, shown_key(name), "unknown key", nearest(name, TOP_KEYS))
