"""Reads single values of the config: each kind with its limits, and what to write instead."""

import difflib
import enum
from collections.abc import Iterable
from ipaddress import ip_address, ip_network
from typing import TypeVar

from ipsec_agent.core.complaint import Complaints
from ipsec_agent.core.config import Subnet
from ipsec_agent.core.model import Address
from ipsec_agent.core.yaml_lines import Entry

Choice = TypeVar("Choice", bound=enum.StrEnum)


class Fields:
    """A mapping's values by name; a complaint for each that is wrong, and its default instead."""

    def __init__(
        self, entries: dict[str, tuple[str, Entry]], line: int, complaints: Complaints
    ) -> None:
        self._entries = entries
        self._line = line
        self.complaints = complaints

    def entry(self, name: str) -> tuple[str, Entry] | None:
        """The key path and the entry, None where it is absent or empty."""
        found = self._entries.get(name)
        return None if found is None or found[1].empty else found

    def line(self, name: str) -> int:
        """The line of a value, or of the mapping where it is absent."""
        found = self._entries.get(name)
        return found[1].line if found else self._line

    def path(self, name: str) -> str:
        """The key path of a value."""
        found = self._entries.get(name)
        return found[0] if found else name

    def wrong(self, name: str, message: str, remedy: str) -> None:
        """Complain of a value."""
        self.complaints.error(self.line(name), self.path(name), message, remedy)

    def unknown(self, known: Iterable[str]) -> None:
        """Warn of keys that nobody reads, with the nearest that somebody does."""
        names = sorted(known)
        for name, (path, entry) in self._entries.items():
            if name not in names:
                near = difflib.get_close_matches(name, names, n=1)
                remedy = f"did you mean {near[0]}?" if near else "it is ignored"
                self.complaints.warn(entry.line, path, "this key is not known", remedy)

    def text(self, name: str, default: str = "") -> str:
        """A text."""
        found = self.entry(name)
        if found is None:
            return default
        value = found[1].value
        if not isinstance(value, str):
            self.wrong(name, "this must be a text", f'write {name}: "…"')
            return default
        return value

    def number(self, name: str, default: float, low: float, high: float) -> float:
        """A number within limits."""
        found = self.entry(name)
        if found is None:
            return default
        value = found[1].value
        if (
            isinstance(value, bool)
            or not isinstance(value, int | float)
            or not low <= value <= high
        ):
            self.wrong(
                name,
                f"this must be a number from {low:g} to {high:g}",
                f"write {name}: {default:g}, or leave it out",
            )
            return default
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """true or false."""
        found = self.entry(name)
        if found is None:
            return default
        value = found[1].value
        if not isinstance(value, bool):
            self.wrong(name, "this must be true or false", f"write {name}: {str(default).lower()}")
            return default
        return value

    def choice(self, name: str, default: Choice) -> Choice:
        """One of a few words."""
        found = self.entry(name)
        if found is None:
            return default
        kind = type(default)
        words = [str(item.value) for item in kind]
        if found[1].value not in words:
            self.wrong(name, f"this must be {' or '.join(words)}", f"write {name}: {default.value}")
            return default
        return kind(found[1].value)

    def texts(self, name: str) -> tuple[str, ...]:
        """A list of texts; a single one counts as a list of one."""
        found = self.entry(name)
        if found is None:
            return ()
        entry = found[1]
        elements = (entry,) if entry.elements is None else entry.elements
        values = [item.value for item in elements]
        if entry.items is not None or not all(isinstance(item, str) for item in values):
            self.wrong(name, "this must be a list of texts", f"write {name}: [one, two]")
            return ()
        return tuple(str(item) for item in values)

    def address(self, name: str) -> Address | None:
        """An IP address."""
        text = self.text(name)
        if not text:
            return None
        try:
            return ip_address(text)
        except ValueError:
            self.wrong(name, f"{text!r} is no IP address", f"write for example {name}: 10.0.1.7")
            return None

    def subnets(self, name: str) -> tuple[Subnet, ...]:
        """A list of subnets, host bits allowed."""
        found = self.entry(name)
        if found is None:
            return ()
        path, entry = found
        if entry.elements is None:
            self.wrong(
                name, "this is no list", f"write each subnet on a line of its own: `{name}:` `- …`"
            )
            return ()
        read = []
        for position, item in enumerate(entry.elements):
            # A bare number would be read as an address.
            text = item.value if isinstance(item.value, str) else ""
            try:
                read.append(Subnet(text, ip_network(text.strip(), strict=False)))
            except ValueError:
                self.complaints.error(
                    item.line,
                    f"{path}[{position}]",
                    f"{item.value!r} is no subnet",
                    "write an address and a prefix length, such as 10.0.0.0/20",
                )
        return tuple(read)
