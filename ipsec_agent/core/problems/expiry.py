"""Certificates that end: this VM's, the CAs', and those that peers have shown."""

from collections.abc import Iterator
from datetime import UTC, datetime

from ipsec_agent.core.clock import doubt
from ipsec_agent.core.config import CertificateFacts, Config, ExpiryPeriods
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.peer_certificates import clock_facts, shown_by_peers
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.renewal import CLOCK_FIRST, is_intermediate, sign_again
from ipsec_agent.core.words import remaining, several

DAY = 86400.0
"""Seconds."""

OUTDATED = frozenset({"certificate-expired", "certificate-not-valid-yet"})
"""Problems with which no handshake succeeds."""

EXPIRED = (
    "new handshakes fail, established SAs continue; `ipsec-agent reload` takes the new one in place"
    " of an expired one"
)
UNTIL_THEN = "new handshakes fail once it has expired, established SAs continue"


def expiry_problems(config: Config, observed: Observed) -> tuple[Problem, ...]:
    """What is to be said of each certificate of the config, and of those of peers together."""
    now = observed.time
    wrong = doubt(now, clock_facts(observed))
    own = [_own(facts, config.expiry, now, wrong=bool(wrong)) for facts in config.certificates]
    found = [problem for problem in own if problem is not None]
    return (
        *_clock(wrong, found),
        *found,
        *_of_peers(shown_by_peers(observed.charon, config), config.expiry, now, wrong=bool(wrong)),
    )


def days_left(facts: CertificateFacts, now: float) -> float:
    """Days until a certificate ends, negative once it has."""
    return (facts.not_after - datetime.fromtimestamp(now, UTC)).total_seconds() / DAY


def loudness(periods: ExpiryPeriods, left: float) -> Severity | None:
    """How loud it is that so many days are left; None where it need not be said."""
    for limit, severity in (
        (periods.critical, Severity.CRITICAL),
        (periods.error, Severity.ERROR),
        (periods.warn, Severity.WARNING),
        (periods.info, Severity.INFO),
    ):
        if left <= limit:
            return severity
    return None


def _clock(wrong: str, found: list[Problem]) -> Iterator[Problem]:
    """A clock that is wrong; it is as bad as what it makes of the certificates."""
    if wrong:
        fatal = any(problem.code in OUTDATED for problem in found)
        yield Problem(
            "clock-wrong",
            Severity.CRITICAL if fatal else Severity.WARNING,
            f"this VM's clock seems wrong: {wrong}",
            "compare it with another VM's (`date -u`), and set it: `timedatectl set-ntp true`, or"
            " `date -u -s TIME` and `hwclock -w`; see docs/problems.md where it is right",
        )


def _own(
    facts: CertificateFacts, periods: ExpiryPeriods, now: float, *, wrong: bool
) -> Problem | None:
    which, subject = f"the {facts.role} certificate {facts.subject}", f"{facts.role} {facts.serial}"
    left = days_left(facts, now)
    early = facts.not_before.timestamp() > now
    if left < 0 or early:
        by = " by this VM's clock, which seems wrong" if wrong else ""
        what = (
            f"is not valid before {facts.not_before:%Y-%m-%d %H:%M} UTC"
            if early
            else f"expired on {facts.not_after:%Y-%m-%d}"
        )
        rotate = "wait, or set this VM's clock" if early else f"{_renew(facts)} now: {EXPIRED}"
        return Problem(
            "certificate-not-valid-yet" if early else "certificate-expired",
            Severity.CRITICAL,
            f"{which} {what}{by}",
            CLOCK_FIRST if wrong else rotate,
            subject,
        )
    severity = loudness(periods, left)
    if severity is None:
        return None
    return Problem(
        "certificate-expires",
        severity,
        f"{which} expires on {facts.not_after:%Y-%m-%d}, in {remaining(left)}",
        CLOCK_FIRST if wrong else f"{_renew(facts)}: {UNTIL_THEN}",
        subject,
    )


def _renew(facts: CertificateFacts) -> str:
    """What to do about a certificate of the config that ends."""
    if facts.role == "instance" or not is_intermediate(facts.subject, facts.issuer):
        return "rotate it"
    listed_in = "ca_certificates" if facts.role == "authority" else "instance_certificate"
    return sign_again(facts.issuer, listed_in)


def _of_peers(
    shown: tuple[CertificateFacts, ...], periods: ExpiryPeriods, now: float, *, wrong: bool
) -> Iterator[Problem]:
    """One problem for all of them, and no louder than a warning.

    Each peer says of its own how bad it is; a fleet must not fail because of one VM's.
    """
    ending = sorted(
        (facts for facts in shown if loudness(periods, days_left(facts, now)) is not None),
        key=lambda facts: facts.not_after,
    )
    if ending:
        loud = loudness(periods, days_left(ending[0], now)) is not Severity.INFO
        named = listed(ending, say=lambda facts: _when(facts, now))
        yield Problem(
            "peer-certificate-expires",
            Severity.WARNING if loud else Severity.INFO,
            f"peers have {several(len(ending), 'certificate')} to be renewed: {named}",
            CLOCK_FIRST
            if wrong
            else "renew them on these VMs before they end: new handshakes with a VM fail once its"
            " certificate has expired",
        )


def _when(facts: CertificateFacts, now: float) -> str:
    ends = "ended" if days_left(facts, now) < 0 else "ends"
    return f"{facts.subject} {ends} on {facts.not_after:%Y-%m-%d}"
