"""Variables that nobody filled in: BOSH's `((name))`, tags of a job's template, and those of other
programs, `{{name}}` and `${NAME}`."""

import re

from msgspec.structs import replace

from ipsec_agent.core.manifest.complaint import Complaints, shown_key
from ipsec_agent.core.manifest.yaml_lines import Entry

VARIABLE = re.compile(
    r"\(\(([^()\n]{0,200})\)\)|<%[^%]{0,500}%>|\{\{ ?([^{}\n]{0,200}?) ?\}\}|\$\{([^{}\n]{0,200})\}"
)
NAME = re.compile(r"!?[-/.\w]+")
"""What BOSH takes as a name (interpolationRegex in bosh-cli's director/template)."""

MARKS = {"(": ("((", "))"), "{": ("{{", "}}"), "$": ("${", "}")}

LONGEST_PART = 60
"""Characters between two slashes of a name that is shown; a line of a key has more."""

MOST_NAMES = 5
"""Named in one complaint."""

FILL_IN = (
    "check the file with its values: `bosh interpolate FILE --vars-file VARS`, or"
    " `credhub interpolate -f FILE`"
)


def voided(entry: Entry, path: str, complaints: Complaints) -> Entry:
    """An entry of which each value with a variable is void, and complained of."""
    if entry.items is not None:
        items = {
            name: voided(item, f"{path}.{shown_key(name)}", complaints)
            for name, item in entry.items.items()
        }
        return replace(entry, items=items)
    if entry.elements is not None:
        elements = tuple(
            voided(item, f"{path}[{position}]", complaints)
            for position, item in enumerate(entry.elements)
        )
        return replace(entry, elements=elements)
    return entry.voided() if complained(entry, path, complaints) else entry


def complained(entry: Entry, path: str, complaints: Complaints) -> bool:
    """Whether a text holds a variable; then a complaint."""
    if not isinstance(entry.value, str):
        return False
    found = list(dict.fromkeys(_shown(one) for one in VARIABLE.finditer(entry.value)))
    if not found:
        return False
    names = " and ".join(found[:MOST_NAMES])
    verb = "was" if len(found) == 1 else "were"
    remedy = "check the file that BOSH renders of the template" if "<%" in names else FILL_IN
    if not any(one.startswith(("((", "<%")) for one in found):
        remedy = "it is not a variable of BOSH: write its value, or `((name))` and fill that in"
    if "((…))" in found:
        remedy = "a name has letters, digits, and - _ / . only"
    complaints.error(entry.line, path, f"{names} {verb} not filled in", remedy)
    return True


def of_map(text: str) -> bool:
    """Whether a text is a variable of BOSH's, and not one part of it, such as a certificate."""
    found = VARIABLE.fullmatch(text.strip())
    return found is not None and bool(found[1]) and not found[1].endswith(".certificate")


def _shown(variable: re.Match[str]) -> str:
    """The variable with its name, unless that is none."""
    if variable[0].startswith("<%"):
        return "<%= … %>"
    name = variable[1] or variable[2] or variable[3] or ""
    short = max(map(len, name.split("/"))) <= LONGEST_PART
    begin, end = MARKS[variable[0][0]]
    return variable[0] if NAME.fullmatch(name) and short else f"{begin}…{end}"
