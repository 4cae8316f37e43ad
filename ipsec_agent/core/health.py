"""Desired, observed and the time: named problems, each with its severity, cause and remedy."""

import enum
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from ipsec_agent.core.config import CertificateFacts, Config
from ipsec_agent.core.drift import foreign, missing
from ipsec_agent.core.model import Desired, Role
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.placement import Placement


class Severity(enum.StrEnum):
    """How loud a problem is; WARNING and above make the VM unhealthy, except INFO."""

    INFO = "info"
    WARNING = "warning"
    ERROR = "error"
    CRITICAL = "critical"


@dataclass(frozen=True, slots=True)
class Problem:
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


@dataclass(frozen=True, slots=True)
class LogLine:
    """A line of charon's log that explains a problem; `peer` is "" where it names none."""

    code: str
    text: str
    peer: str
    hint: str
    time: float


def judge(
    config: Config, placement: Placement | None, desired: Desired, observed: Observed
) -> tuple[Problem, ...]:
    """Every problem that one pass shows."""
    return (
        *_charon(desired, observed),
        *_policies(desired, observed),
        *_placement(placement),
        *_certificates(config, observed.time),
        *_optional(config),
    )


def explained(problems: tuple[Problem, ...], lines: tuple[LogLine, ...]) -> tuple[Problem, ...]:
    """The problems, and one for each peer and cause that charon's log names."""
    latest = {(line.code, line.peer): line for line in lines}
    return (
        *problems,
        *(
            Problem(
                line.code,
                Severity.WARNING,
                f"charon says of {line.peer}: {line.text}" if line.peer else f"charon: {line.text}",
                line.hint,
                line.peer,
            )
            for line in latest.values()
        ),
    )


def dated(
    problems: tuple[Problem, ...], before: tuple[Problem, ...], now: float
) -> tuple[Problem, ...]:
    """The problems, each with the time since which it stands."""
    since = {(problem.code, problem.subject): problem.since for problem in before}
    return tuple(
        replace(problem, since=since.get((problem.code, problem.subject), now))
        for problem in problems
    )


def healthy(problems: tuple[Problem, ...]) -> bool:
    """Whether nothing is worse than INFO."""
    return all(problem.severity is Severity.INFO for problem in problems)


def _charon(desired: Desired, observed: Observed) -> tuple[Problem, ...]:
    if desired.credentials is None:
        return ()
    if observed.charon is None:
        return (
            Problem(
                "charon-down",
                Severity.CRITICAL,
                "charon does not run; no new SA can be negotiated",
                "the agent starts it again by itself; see charon's log for why it ended",
            ),
        )
    if not observed.charon.responsive:
        how = "a signal has stopped it" if observed.charon.process.stopped else "it hangs"
        return (
            Problem(
                "charon-unresponsive",
                Severity.CRITICAL,
                f"charon (pid {observed.charon.process.pid}) does not answer on VICI: {how}",
                "kill -CONT continues a stopped one; one that hangs must be ended",
            ),
        )
    return ()


def _policies(desired: Desired, observed: Observed) -> tuple[Problem, ...]:
    found = []
    lacking = missing(desired, observed.policies)
    if lacking:
        names = sorted({policy.connection for policy in lacking})
        found.append(
            Problem(
                "policies-missing",
                Severity.CRITICAL,
                f"{len(lacking)} of {len(desired.policies)} policies are not in the kernel"
                f" ({', '.join(names[:5])}{', …' if len(names) > 5 else ''})",  # noqa: PLR2004
                "the agent installs them again by itself; if this stays, another program removes"
                " them: watch `ip xfrm monitor policy`",
            )
        )
    strange = foreign(desired, observed)
    if strange and observed.charon is not None and observed.charon.responsive:
        first = strange[0].selector
        found.append(
            Problem(
                "policies-foreign",
                Severity.WARNING,
                f"{len(strange)} policies in the kernel are not ours, such as {first.source} to"
                f" {first.destination} ({first.direction.name.lower()})",
                "find out who installed them (another IPsec program, an earlier charon), and"
                " remove them with `ip xfrm policy delete`",
            )
        )
    return tuple(found)


def _placement(placement: Placement | None) -> tuple[Problem, ...]:
    if placement is None or placement.present:
        return ()
    return (
        Problem(
            "address-missing",
            Severity.ERROR,
            f"this VM's address {placement.address} is on none of its links",
            "correct agent.address, or bring the link up",
        ),
    )


def _certificates(config: Config, now: float) -> tuple[Problem, ...]:
    found = []
    for facts in config.certificates:
        left = days_left(facts, now)
        severity = _loudness(config, left)
        if severity is None:
            continue
        expired = left < 0
        found.append(
            Problem(
                "certificate-expired" if expired else "certificate-expires",
                severity,
                f"the {facts.role} certificate {facts.subject} "
                + ("has expired" if expired else f"expires in {left:.0f} days"),
                "rotate it: new handshakes fail once it has expired, though established SAs go on",
                f"{facts.role} {facts.serial}",
            )
        )
    return tuple(found)


def days_left(facts: CertificateFacts, now: float) -> float:
    """Days until a certificate ends, negative once it has."""
    return (facts.not_after - datetime.fromtimestamp(now, UTC)).total_seconds() / 86400


def _loudness(config: Config, left: float) -> Severity | None:
    for limit, severity in (
        (config.expiry.critical, Severity.CRITICAL),
        (config.expiry.error, Severity.ERROR),
        (config.expiry.warn, Severity.WARNING),
        (config.expiry.info, Severity.INFO),
    ):
        if left <= limit:
            return severity
    return None


def _optional(config: Config) -> tuple[Problem, ...]:
    if not config.optional:
        return ()
    return (
        Problem(
            "optional-ignored",
            Severity.WARNING,
            "optional: true is asked for, but this version always enforces IPsec",
            "peers without IPsec are unreachable until they have it, or are in no_ipsec_subnets",
        ),
    )


def clear_role(desired: Desired) -> bool:
    """Whether this VM speaks clear with everyone, which the status says aloud."""
    return desired.role is Role.CLEAR
