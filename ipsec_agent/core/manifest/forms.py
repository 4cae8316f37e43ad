"""Where the ipsec properties are: the rendered form, or the add-on's runtime config."""

from collections.abc import Iterable, Iterator

from msgspec import Struct, field
from msgspec.structs import replace

from ipsec_agent.core.manifest import variables
from ipsec_agent.core.manifest.complaint import Complaints, shown_key
from ipsec_agent.core.manifest.fields import nearest
from ipsec_agent.core.manifest.yaml_lines import Entry, Scalar

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
        agent: what is said of this VM alone.
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
        _nothing(root, complaints)
        return None
    properties: dict[str, tuple[str, Entry]] = {}
    for section in sections:
        _agent_elsewhere(section, complaints)
        properties |= _below(section, complaints)
        properties |= _beside(section, ipsec, known, complaints)
    if not properties and complaints.refused:
        return None
    line = ipsec.line if ipsec is not None else root.line
    path = holding[0].path_of("ipsec") if holding else "ipsec"
    return Located(properties, _agent(root, sections), line, path)


def _agent(root: Entry, sections: Iterable[_Section]) -> Entry | None:
    """The node section: that beside `ipsec:`, as BOSH's job has it; the file's own outranks it."""
    agent: Entry | None = None
    for holder in (*(one.holder for one in sections if _of_job(one)), root):
        later = holder.get("agent")
        if later is None or later.empty:
            continue
        if agent is not None and agent.items is not None and later.items is not None:
            later = replace(later, items={**agent.items, **later.items})
        agent = later
    return agent


def _of_job(section: _Section) -> bool:
    """Whether it is what BOSH gives to the job: its properties, or the add-on's."""
    return section.path.rpartition(".")[2] == "properties"


def _agent_elsewhere(section: _Section, complaints: Complaints) -> None:
    agent = section.holder.get("agent") if section.path and not _of_job(section) else None
    if agent is not None and agent.items is not None:
        complaints.warn(
            agent.line,
            section.path_of("agent"),
            "has no effect here",
            "move it below `properties:`, beside `ipsec:`, or to the top level of the file",
        )


def _nothing(root: Entry, complaints: Complaints) -> None:
    """Complain that there are no properties, or of the variable that should give them."""
    before = len(complaints.found)
    for path, entry in _places(root, ""):
        variables.complained(entry, path, complaints)
    if len(complaints.found) > before:
        return
    complaints.error(
        root.line,
        "",
        "no ipsec properties found",
        "nest them under `ipsec:`, or under `addons: … properties: ipsec:` as the guide shows",
    )


def _places(entry: Entry, path: str) -> Iterator[tuple[str, Entry]]:
    """Every value on a way to the properties."""
    for name in ("addons", "jobs", "properties", "ipsec"):
        part = entry.get(name)
        if part is None:
            continue
        where = f"{path}.{name}" if path else name
        yield where, part
        yield from _places(part, where)
        for position, item in enumerate(part.elements or ()):
            yield f"{where}[{position}]", item
            yield from _places(item, f"{where}[{position}]")


def _below(section: _Section, complaints: Complaints) -> dict[str, tuple[str, Entry]]:
    ipsec = section.ipsec
    if ipsec is None:
        return {}
    path = section.path_of("ipsec")
    if ipsec.items is None:
        if not variables.complained(ipsec, path, complaints):
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


def _lines(first: int, last: int) -> str:
    return f"lines {first} to {last}" if last > first else f"line {first}"


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
    """Those of the add-on with the job ipsec, or those of the job where it has any.

    The director merges nothing either (bosh: addon.rb, add_addon_jobs_to_instance_groups).
    """
    addons = root.get("addons")
    if addons is None or addons.empty:
        return
    if addons.elements is None and not variables.complained(addons, "addons", complaints):
        complaints.error(
            addons.line, "addons", "must be a list", 'write "- " before `name:` of the add-on'
        )
    listed = [
        (f"addons[{position}]", addon)
        for position, addon in enumerate(addons.elements or (addons,))
    ]
    ours = [(path, addon) for path, addon in listed if _named(addon, path)]
    for path, addon in ours[1:]:
        first = ours[0][1]
        complaints.error(
            addon.line,
            path,
            f"the job {JOB} is in two add-ons, here and in line {first.line}",
            "keep the one that is for this VM, as its `include:` says: delete"
            f" {_lines(addon.line, addon.last)} or {_lines(first.line, first.last)}",
        )
    for path, addon in ours[:1] or listed:
        named = _named(addon, path) or _misnamed(addon, path, complaints)
        for where, job in named[1:]:
            complaints.error(
                job.line,
                where,
                f"the job {JOB} is listed twice, here and in line {named[0][1].line}",
                f"delete {_lines(job.line, job.last)}; BOSH refuses a job twice",
            )
        if named or _without_job(addon, path, complaints):
            yield from _of_addon(addon, path, _own(named), complaints)
        for where, job in named:
            _agent_elsewhere(_Section(where, job, None), complaints)
            yield from _properties(job, where)


def _named(addon: Entry, path: str) -> list[tuple[str, Entry]]:
    """The jobs ipsec of an add-on, each with its key path."""
    return [(where, job) for where, job in _jobs(addon, path) if _name(job) == JOB]


def _jobs(addon: Entry, path: str) -> list[tuple[str, Entry]]:
    jobs = addon.get("jobs")
    elements = jobs.elements if jobs is not None else None
    return [(f"{path}.jobs[{position}]", job) for position, job in enumerate(elements or ())]


def _name(job: Entry) -> Scalar:
    name = job.get("name")
    return name.value if name is not None else None


def _own(named: Iterable[tuple[str, Entry]]) -> Entry | None:
    """The properties of the job, where it has any."""
    given = (job.get("properties") for _, job in named)
    return next((entry for entry in given if entry is not None and not entry.empty), None)


def _of_addon(
    addon: Entry, path: str, own: Entry | None, complaints: Complaints
) -> Iterator[_Section]:
    """What the add-on itself gives to its job.

    Args:
        own: the properties of the job.
    """
    ipsec = addon.get("ipsec")
    if ipsec is not None:
        complaints.error(
            ipsec.line,
            f"{path}.ipsec",
            "must be nested under `properties:`",
            "add the line `properties:` above this one, and " + _move(ipsec.line, ipsec.last, 2),
        )
    yield _Section(path, addon, ipsec)
    for section in _properties(addon, path):
        if own is None or _ignored(section, own, complaints):
            yield section


def _ignored(section: _Section, own: Entry, complaints: Complaints) -> bool:
    """Complain of what an add-on gives in vain, since its job has properties of its own.

    Returns:
        Whether nothing else has the properties, so that these are read all the same.
    """
    alone = section.ipsec is not None and own.get("ipsec") is None
    for name in ("ipsec", "agent"):
        ignored = section.holder.get(name)
        if ignored is not None and not ignored.empty:
            complain = complaints.error if alone and name == "ipsec" else complaints.warn
            complain(
                ignored.line,
                section.path_of(name),
                f"has no effect: the job {JOB} has `properties:` of its own (line {own.line}),"
                " and BOSH gives it those alone",
                f"move {_lines(ignored.line, ignored.last)} there, or delete them",
            )
    return alone


def _properties(holder: Entry, path: str) -> Iterator[_Section]:
    properties = holder.get("properties")
    if properties is not None:
        yield _Section(f"{path}.properties", properties, properties.get("ipsec"))


def _misnamed(addon: Entry, path: str, complaints: Complaints) -> list[tuple[str, Entry]]:
    """A job with properties of ipsec under another name; then a complaint."""
    for where, job in _jobs(addon, path):
        if any(section.ipsec is not None for section in _properties(job, where)):
            complaints.error(
                job.line, f"{where}.name", f"the job must be named {JOB}", f"write `- name: {JOB}`"
            )
            return [(where, job)]
    return []


def _without_job(addon: Entry, path: str, complaints: Complaints) -> bool:
    """Whether an add-on gives properties of ipsec to no job of that name; then a complaint."""
    if not any(section.ipsec is not None for section in _properties(addon, path)):
        return False
    jobs = addon.get("jobs")
    if jobs is not None and variables.complained(jobs, f"{path}.jobs", complaints):
        return True
    if jobs is not None and jobs.items is not None:
        wrong = "must be a list", 'write "- " before `name:` of the job'
    else:
        wrong = (
            f"no job of this add-on is named {JOB}",
            f"write `- name: {JOB}` and `release: {JOB}` below `jobs:`; the name must stay {JOB}",
        )
    complaints.error(addon.line, f"{path}.jobs", *wrong)
    return True


def _unknown_top(root: Entry, known: Iterable[str], complaints: Complaints) -> None:
    for name, entry in (root.items or {}).items():
        if name not in TOP_KEYS and name not in known:
            complaints.warn(entry.line, shown_key(name), "unknown key", nearest(name, TOP_KEYS))
