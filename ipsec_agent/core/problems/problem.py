"""What an operator should know or do, as records: a named problem, and a log line that explains."""

import enum
from collections.abc import Callable, Sequence
from typing import TypeVar

from msgspec import Struct

T = TypeVar("T")


class Severity(enum.StrEnum):
    """How loud a problem is."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


class Problem(Struct, frozen=True):
    """Something that an operator should know or do.

    Attributes:
        code: stable name, for machines.
        subject: what it is about, so that two of one code are told apart.
        since: when it was first seen, seconds since the epoch.
    """

    code: str
    severity: Severity
    message: str
    hint: str
    subject: str = ""
    since: float = 0.0


class LogLine(Struct, frozen=True):
    """A line of charon's log that explains a problem; `peer` is "" where it names none."""

    code: str
    text: str
    peer: str
    hint: str
    time: float


ADVICE = frozenset({"container-not-guarded", "lockout-risk", "metrics-not-served"})
"""Warnings that say nothing of how this VM's IPsec is: a default gateway inside the encrypted set
is common, and so are containers with an address of their own on the uplink's network. A VM that has
either is not degraded for good."""


def healthy(problems: tuple[Problem, ...]) -> bool:
    """Whether nothing but advice is worse than INFO."""
    return all(problem.severity is Severity.INFO or problem.code in ADVICE for problem in problems)


def loudest_first(problems: tuple[Problem, ...]) -> tuple[Problem, ...]:
    """The problems by severity; those of one severity stay in their order."""
    loudness = tuple(Severity)
    return tuple(sorted(problems, key=lambda problem: -loudness.index(problem.severity)))


def listed(items: Sequence[T], most: int = 3, say: Callable[[T], str] = str) -> str:
    """The first few of many, and how many more there are.

    Args:
        say: makes a text of each that is shown.
    """
    rest = f" and {len(items) - most} more" if len(items) > most else ""
    return ", ".join(map(say, items[:most])) + rest
