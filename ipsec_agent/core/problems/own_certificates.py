"""Whether charon's complaint about a certificate is about one of the config.

While charon verifies a peer it tries each certificate with the peer's subject: so it finds this
VM's own, too, where all VMs have the same subject, and complains of it without naming it.
"""

import re
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta

from ipsec_agent.core.config import CertificateFacts

DATES = re.compile(r"\(valid from (.+?) to (.+?)\)$")
FORMAT = "%b %d %H:%M:%S %Y"

ZONES = timedelta(hours=14)
"""charon writes local time; no zone is farther from UTC, and all are whole quarters of an hour."""

QUARTER, SUMMER = timedelta(minutes=15), timedelta(hours=1)


def is_own(text: str, certificates: Iterable[CertificateFacts]) -> bool:
    """Whether the dates of a line are those of one of these certificates."""
    found = DATES.search(text)
    if found is None:
        return False
    try:
        begin, end = (datetime.strptime(one, FORMAT).replace(tzinfo=UTC) for one in found.groups())
    except ValueError:
        return False
    return any(_same(begin - one.not_before, end - one.not_after) for one in certificates)


def _same(begin: timedelta, end: timedelta) -> bool:
    """Whether two differences are those of a zone, which may have summer time."""
    return (
        max(abs(begin), abs(end)) <= ZONES
        and not begin % QUARTER
        and not end % QUARTER
        and abs(begin - end) <= SUMMER
    )
