"""A complaint about the config: where it is, what is wrong, and what to write instead."""

import re

from msgspec import Struct, field
from msgspec.structs import replace

SHOWN = 40
"""Characters of the operator's text that a complaint repeats at most."""

KEY_MATERIAL = re.compile(r"(?=[a-z]*[A-Z0-9+/=])[A-Za-z0-9+/=]{12,}")
"""What could be of a key's lines in a broken text; plain lower-case words are not."""


class Complaint(Struct, frozen=True):
    """One complaint; `str` of it is the operator's line.

    Attributes:
        line: 1-based, 0 where it concerns no line.
        key: the key path, such as ipsec.ca_certificates[0]; "" for the whole file.
        severity: "error" refuses the config, "warning" does not.
        dated: at another time nothing would be wrong.
    """

    file: str
    line: int
    key: str
    message: str
    remedy: str
    severity: str = "error"
    dated: bool = False

    @property
    def overlooked(self) -> "Complaint":
        """A warning, where only the time is wrong; else the same."""
        return replace(self, severity="warning") if self.dated else self

    def __str__(self) -> str:
        where = f"{self.file}:{self.line}" if self.line else self.file
        key = f" {self.key}:" if self.key else ""
        remedy = f"; {self.remedy}" if self.remedy else ""
        warning = " warning:" if self.severity == "warning" else ""
        return f"{where}:{warning}{key} {self.message}{remedy}"


class Complaints(Struct):
    """The complaints of one parse, collected."""

    file: str
    found: list[Complaint] = field(default_factory=list)

    def error(self, line: int, key: str, message: str, remedy: str = "") -> None:
        """Collect what refuses the config."""
        self.found.append(Complaint(self.file, line, key, message, remedy))

    def warn(self, line: int, key: str, message: str, remedy: str = "") -> None:
        """Collect what an operator should know."""
        self.found.append(Complaint(self.file, line, key, message, remedy, "warning"))

    @property
    def refused(self) -> bool:
        """Whether any of them refuses the config."""
        return any(complaint.severity == "error" for complaint in self.found)

    @property
    def outdated(self) -> bool:
        """Whether the time alone refuses it."""
        return self.refused and all(
            complaint.dated for complaint in self.found if complaint.severity == "error"
        )

    def in_order(self) -> tuple[Complaint, ...]:
        """All of them by line, each once."""
        return tuple(dict.fromkeys(sorted(self.found, key=lambda complaint: complaint.line)))


def shown(value: object) -> str:
    """The operator's text in quotes; "this" where it is long, unprintable or could be of a key."""
    return f"'{value}'" if _harmless(str(value)) else "this"


def shown_key(name: str) -> str:
    """A key of the operator's for a key path; "?" where it could be of a private key."""
    return name if name and _harmless(name) else "?"


def _harmless(text: str) -> bool:
    return len(text) <= SHOWN and text.isprintable() and KEY_MATERIAL.search(text) is None
