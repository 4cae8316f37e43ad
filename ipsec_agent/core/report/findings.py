"""What a report finds: a kind, how loud it is, one sentence, and the VMs that it is about."""

import enum
import re
from collections import Counter
from collections.abc import Container, Iterable, Sequence
from ipaddress import ip_address
from typing import TypeVar

from msgspec import Struct

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.words import duration, printable

MOST_NAMED = 8
"""VMs that a sentence names; JSON has all."""

LONGEST = 240
"""Characters of a text of a VM that are shown."""

T = TypeVar("T")


class Kind(enum.StrEnum):
    """What a finding is about, in the order in which they are shown."""

    UNHEALTHY = "unhealthy"
    CLEAR = "clear"
    ENFORCING = "enforcing"
    CONFIG = "config"
    CERTIFICATE = "certificate"
    EXPIRES = "expires"
    ASYMMETRY = "asymmetry"
    NO_FILE = "no-file"
    FILE = "file"


TITLES = {
    Kind.UNHEALTHY: "Not healthy",
    Kind.CLEAR: "Clear packets",
    Kind.ENFORCING: "What enforcing would cut off",
    Kind.CONFIG: "Configs and versions that differ",
    Kind.CERTIFICATE: "Certificates and CAs that differ",
    Kind.EXPIRES: "What expires first",
    Kind.ASYMMETRY: "What only one of two VMs says",
    Kind.NO_FILE: "Peers without a file",
    Kind.FILE: "Files",
}


OF_PAIRS = frozenset({Kind.CLEAR, Kind.ENFORCING, Kind.ASYMMETRY})
"""Kinds of findings that begin with the VM whose pairs they are."""


class Finding(Struct, frozen=True):
    """One thing that an operator should know; of severity INFO where nothing is wrong.

    Attributes:
        vms: all whom it is about, by their names.
        by: the VMs by whose word alone it is known; none where the report itself found it.
    """

    kind: Kind
    severity: Severity
    message: str
    hint: str = ""
    vms: tuple[str, ...] = ()
    by: tuple[str, ...] = ()

    @property
    def subjects(self) -> tuple[str, ...]:
        """Whom it speaks against: of pairs the one that is in all of them."""
        return self.vms[:1] if self.kind in OF_PAIRS else self.vms


def chosen(findings: Sequence[Finding], most: int) -> list[Finding]:
    """As many as there is room for, in their order: no VM's word takes the room of the others'.

    The first finding of each VM comes before the second one of any; so liars, whatever they make
    up, do not push out what others say.
    """
    told: Counter[str] = Counter()
    ranks = []
    for number, one in enumerate(findings):
        ranks.append((min((told[name] for name in one.by), default=0), number))
        told.update(one.by)
    return [findings[number] for number in sorted(number for _, number in sorted(ranks)[:most])]


def plain(text: str, most: int = LONGEST) -> str:
    """A text of a VM or a file's name, as one line that no terminal acts on."""
    words = " ".join(text[: 4 * most].split())
    shown = printable(words)
    return shown if len(shown) <= most else f"{shown[: most - 1]}…"


def code(text: str) -> str:
    """A code or a state: what does not look like one is not shown."""
    return text if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+~-]{0,63}", text) else "(unreadable)"


def named(names: Sequence[str]) -> str:
    """The first few names, and how many more there are."""
    rest = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + rest


def by_name(names: Iterable[str]) -> list[str]:
    """Names of VMs, each once: addresses by their numbers, then files."""
    return sorted(set(names), key=_place)


def _place(name: str) -> tuple[int, int, str]:
    try:
        address = ip_address(name)
    except ValueError:
        return 9, 0, name
    return address.version, int(address), ""


def ago(seconds: float) -> str:
    """So long ago, in the largest whole unit."""
    return f"{duration(int(seconds), 'h')} ago"


def hubs(
    pairs: Iterable[tuple[str, str, T]], known: Container[str] = ()
) -> dict[str, list[tuple[str, T]]]:
    """Pairs by the one of the two that is to blame, so that one VM's fault is one finding.

    Args:
        known: the VMs with a file. One without is to blame; else the one that is in more pairs.

    Returns:
        by name: the others of its pairs, with what came along.
    """
    found = tuple(pairs)
    degree = Counter(name for one, other, _ in found for name in (one, other))
    grouped: dict[str, list[tuple[str, T]]] = {}
    for one, other, what in found:
        blamed, second = max(
            ((one, other), (other, one)), key=lambda pair: (pair[0] not in known, degree[pair[0]])
        )
        grouped.setdefault(blamed, []).append((second, what))
    return grouped
