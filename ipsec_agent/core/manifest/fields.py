"""Reads single values of the config: each kind with its limits, and what to write instead."""

import difflib
import enum
import re
from collections.abc import Iterable, Mapping
from typing import TypeVar

from ipsec_agent.core.config import Endpoint
from ipsec_agent.core.manifest.addresses import as_ipv4, read_address
from ipsec_agent.core.manifest.complaint import Complaints, shown, shown_key
from ipsec_agent.core.manifest.system_paths import is_of_the_system
from ipsec_agent.core.manifest.yaml_lines import Entry
from ipsec_agent.core.model import Address

Choice = TypeVar("Choice", bound=enum.StrEnum)

ENDPOINT = re.compile(
    r"(\[(?P<v6>[0-9a-fA-F:.]{2,45})\]|(?P<v4>[0-9.]{7,15})):(?P<port>[0-9]{1,5})"
)
NOWHERE: Mapping[str, str] = {}

LOWEST_PORT, HIGHEST_PORT = 1024, 65535
"""The agent has no right to listen below."""


class Fields:
    """A mapping's values by name; a complaint for each that is wrong, and its default instead.

    Args:
        entries: each with its key path.
        line: of the mapping.
        path: of the mapping.
    """

    def __init__(
        self, entries: dict[str, tuple[str, Entry]], line: int, path: str, complaints: Complaints
    ) -> None:
        self._entries = entries
        self._path = path
        self._line = line
        self.complaints = complaints

    @classmethod
    def of(cls, entry: Entry, path: str, complaints: Complaints) -> "Fields":
        """The values of a section; a complaint where it is no mapping."""
        if entry.items is None:
            complaints.error(
                entry.line, path, "must be a mapping", "write its keys indented below it"
            )
        items = {
            name: (f"{path}.{shown_key(name)}", item) for name, item in (entry.items or {}).items()
        }
        return cls(items, entry.line, path, complaints)

    def entry(self, name: str) -> tuple[str, Entry] | None:
        """The key path and the entry, None where it is absent, empty or void."""
        found = self._entries.get(name)
        return None if found is None or found[1].empty or found[1].void else found

    def incomplete(self, name: str) -> bool:
        """Whether a complaint was made of it before, or of an element of it."""
        found = self._entries.get(name)
        return found is not None and found[1].incomplete

    def missing(self, name: str, message: str, remedy: str) -> None:
        """Complain of a value that must be there, unless what is there was complained of."""
        if not self.incomplete(name):
            self.wrong(name, message, remedy)

    def line(self, name: str) -> int:
        """The line of a value, or of the mapping where it is absent."""
        found = self._entries.get(name)
        return found[1].line if found else self._line

    def path(self, name: str) -> str:
        """The key path of a value."""
        found = self._entries.get(name)
        return found[0] if found else f"{self._path}.{name}"

    def wrong(self, name: str, message: str, remedy: str) -> None:
        """Complain of a value."""
        self.complaints.error(self.line(name), self.path(name), message, remedy)

    def doubtful(self, name: str, message: str, remedy: str) -> None:
        """Warn of a value."""
        self.complaints.warn(self.line(name), self.path(name), message, remedy)

    def unknown(self, known: Iterable[str], elsewhere: Mapping[str, str] = NOWHERE) -> None:
        """Warn of unknown keys, with the nearest known one.

        Args:
            elsewhere: keys that belong somewhere else, each with what to do.
        """
        names = sorted(known)
        for name, (path, entry) in self._entries.items():
            if name not in names:
                remedy = elsewhere.get(name) or nearest(name, names)
                self.complaints.warn(entry.line, path, "unknown key", remedy)

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        found = self.entry(name)
        if found is None:
            return default
        value = found[1].value
        if not isinstance(value, str):
            self.wrong(name, "must be a string", f'write {name}: "…"')
            return default
        return value

    def path_text(self, name: str, default: str = "", *, longest: int = 4000) -> str:
        """An absolute path of the agent's own."""
        text = self.text(name, default)
        if text and not (text.startswith("/") and text.isprintable()):
            self.wrong(name, "must be an absolute path", f"write {name}: /…")
            return default
        if len(text) > longest:
            self.wrong(name, f"path is longer than {longest} characters", "use a shorter one")
            return default
        if text and is_of_the_system(text):
            example = default or f"/…/{name}"
            self.wrong(
                name, f"{text} belongs to the system", f"write, for example, {name}: {example}"
            )
            return default
        return text

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number within limits."""
        return self._number(name, default, low, high, whole=False)

    def whole(self, name: str, default: int, low: int, high: int) -> int:
        """A whole number within limits."""
        return int(self._number(name, default, low, high, whole=True))

    def _number(self, name: str, default: float, low: float, high: float, *, whole: bool) -> float:
        found = self.entry(name)
        if found is None:
            return default
        value = found[1].value
        kinds = int if whole else int | float
        if isinstance(value, bool) or not isinstance(value, kinds) or not low <= value <= high:
            kind = "whole number" if whole else "number"
            self.wrong(
                name,
                f"must be a {kind} from {low:g} to {high:g}",
                f"write {name}: {default:g}, or leave it out",
            )
            return default
        return value

    def flag(self, name: str) -> bool:
        """true or false; false where it is absent."""
        found = self.entry(name)
        if found is None:
            return False
        value = found[1].value
        if not isinstance(value, bool):
            self.wrong(
                name,
                "must be true or false",
                f"write {name}: true, or {name}: false, without quotes",
            )
            return False
        return value

    def choice(self, name: str, default: Choice) -> Choice:
        """One of a few words."""
        found = self.entry(name)
        if found is None:
            return default
        kind = type(default)
        words = [str(item.value) for item in kind]
        if found[1].value not in words:
            self.wrong(name, f"must be {' or '.join(words)}", f"write {name}: {default.value}")
            return default
        return kind(found[1].value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; a single one counts as a list of one."""
        found = self.entry(name)
        if found is None:
            return ()
        entry = found[1]
        elements = (entry,) if entry.elements is None else entry.elements
        values = []
        for position, item in enumerate(elements):
            if isinstance(item.value, str):
                values.append(item.value)
            elif not item.void:
                where, what = f"{found[0]}[{position}]", "must be a string"
                if entry.elements is None:
                    where, what = found[0], "must be a list or a text"
                right = f"write {name}: [one, two]"
                if item.empty:
                    what, right = "is empty", "delete this dash, or write a value after it"
                self.complaints.error(item.line, where, what, right)
        return tuple(values)

    def address(self, name: str) -> Address | None:
        """An IP address that a VM can have."""
        text = self.text(name)
        if not text:
            return None
        example = f"write, for example, {name}: 10.0.1.7"
        try:
            address = read_address(text)
        except ValueError:
            self.wrong(name, f"{shown(text)} is not an IP address", example)
            return None
        if ipv4 := as_ipv4(address):
            self.wrong(name, f"{shown(text)} is IPv4 written as IPv6", f"write {name}: {ipv4}")
            return None
        everybody = str(address) == "255.255.255.255"
        nobody = address.is_loopback or address.is_multicast or address.is_unspecified
        if nobody or everybody or address.is_link_local:
            self.wrong(name, f"{address} cannot be the address of a VM", example)
            return None
        return address

    def endpoint(self, name: str) -> Endpoint | None:
        """An address to listen on, with a port."""
        found = self.entry(name)
        if found is None:
            return None
        example = f'write, for example, {name}: 127.0.0.1:9815, or {name}: "[::1]:9815"'
        parts = ENDPOINT.fullmatch(str(found[1].value))
        port = int(parts["port"]) if parts else 0
        try:
            address = read_address(parts["v6"] or parts["v4"]) if parts else None
        except ValueError:
            address = None
        if address is None or address.is_multicast:
            self.wrong(name, "must be an IP address and a port", example)
        elif ipv4 := as_ipv4(address):
            self.wrong(name, "the address is IPv4 written as IPv6", f"write {name}: {ipv4}:{port}")
        elif not LOWEST_PORT <= port <= HIGHEST_PORT:
            self.wrong(name, f"the port must be from {LOWEST_PORT} to {HIGHEST_PORT}", example)
        else:
            return Endpoint(address, port)
        return None


def nearest(name: str, known: Iterable[str]) -> str:
    """The remedy for an unknown key."""
    near = difflib.get_close_matches(name[:60], sorted(known), n=1)
    return f"did you mean {near[0]}?" if near else "it is ignored"
