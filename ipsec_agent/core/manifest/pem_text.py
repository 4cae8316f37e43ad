"""Texts that should be PEM and were changed on the way here: what did it, and what to write."""

import re

from msgspec.structs import replace

from ipsec_agent.core.manifest.complaint import Complaints
from ipsec_agent.core.manifest.yaml_lines import Entry

ESCAPED = re.compile(
    r"(?:\\{1,4}r)?\\{1,4}n|\\{1,4}r|\\{1,4}(?:u00|x)0[aAdD]|(?:%0[dD])?%0[aA]|&#(?:10|x0?[aA]);"
)
"""Line breaks that are two characters or more."""

PARTS = frozenset({"ca", "certificate", "private_key", "value"})
"""The keys of CredHub's maps below which there is PEM."""

MAP = re.compile(r"\s*(?:\{|[\"']?(?:ca|certificate|private_key|value)[\"']? *:)")
"""One of those maps, in a text."""

LIST = "ca_certificates"

PATH = re.compile(
    r"\s*(?:@|file:(?://)?)?(?:(?:~|\.{0,2})/[\w./~-]+|[\w./~-]+\.(?:pem|crt|cer|key|der))\s*"
)
LONGEST_PATH = 200
ENCODED = "LS0tLS1CRUdJTi"
"""`-----BEGIN` in base64."""


def mended(entry: Entry, name: str, path: str, complaints: Complaints) -> Entry:
    """A property whose texts have their line breaks again; each change is complained of.

    Args:
        name: its key, "" for an element of a list.
    """
    if entry.elements is not None:
        elements = tuple(
            mended(item, "", f"{path}[{position}]", complaints)
            for position, item in enumerate(entry.elements)
        )
        return replace(entry, elements=elements)
    if entry.items is not None:
        items = {
            key: mended(item, key, f"{path}.{key}", complaints) if key in PARTS else item
            for key, item in entry.items.items()
        }
        return replace(entry, items=items)
    # A list is what should be there.
    head = f"{name}:" if name and name != LIST else "-"
    return _mended(entry, head, path, complaints)


def _mended(entry: Entry, head: str, path: str, complaints: Complaints) -> Entry:
    text = entry.value
    if not isinstance(text, str):
        return entry
    below = f"the PEM indented below `{head} |`"
    if len(text) <= LONGEST_PATH and PATH.fullmatch(text):
        complaints.error(
            entry.line, path, "is the path of a file, not what the file holds", f"write {below}"
        )
        return entry.voided()
    if text.lstrip().startswith(ENCODED):
        complaints.error(
            entry.line,
            path,
            "is the base64 of a PEM",
            f"decode it with `base64 -d`, and write {below}",
        )
        return entry.voided()
    if of_map(text):
        complaints.error(entry.line, path, *_no_map(entry.style))
        return entry.voided()
    escaped = ESCAPED.search(text)
    if "-----BEGIN" not in text or escaped is None:
        return entry
    complaints.error(entry.line, path, *_escaped(entry.style, below, escaped[0]))
    return replace(entry, value=ESCAPED.sub("\n", text))


def of_map(text: str) -> bool:
    """Whether one of those maps is within a text."""
    return "-----BEGIN" in text and MAP.match(text) is not None


def _no_map(style: str) -> tuple[str, str]:
    """Why a map is a text there, and what to write."""
    if style in {"|", ">"}:
        return f"is a map below `{style}`, which makes a text of it", f"remove the `{style}`"
    return "is a map within quotes", "remove the quotes around it"


def _escaped(style: str, below: str, found: str) -> tuple[str, str]:
    r"""Why `\n` is no line break there, and what to write."""
    if not found.startswith("\\"):
        return (
            f"`{found}` is no line break to YAML",
            f"write {below}, with a line break for each `{found}`",
        )
    real = f"write {below}, with a line break for each `\\n`"
    if style == "'":
        return (
            "single quotes keep each `\\n` as two characters",
            f"write double quotes in their place, or {real}",
        )
    if style == '"':
        return (
            "`\\\\n` in double quotes is a backslash and an n",
            f"write `\\n` with one backslash, or {real}",
        )
    if not style:
        return (
            "without quotes each `\\n` stays two characters",
            f"write it in double quotes, or {real}",
        )
    return (
        f"below `{style}` each `\\n` stays two characters",
        "write a line break for each `\\n`, or the text in double quotes",
    )
