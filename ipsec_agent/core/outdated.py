"""Certificates that do not hold at a time, and whether another config is any worse by that."""

from collections.abc import Iterable
from datetime import datetime

from ipsec_agent.core.config import CertificateFacts


def outdated(certificates: Iterable[CertificateFacts], now: datetime) -> set[CertificateFacts]:
    """Those that have expired, or are not valid yet."""
    return {one for one in certificates if not one.not_before <= now <= one.not_after}


def no_worse(
    new: Iterable[CertificateFacts], in_force: Iterable[CertificateFacts], now: datetime
) -> bool:
    """Whether each certificate that does not hold is in force already.

    Where all have expired, or the clock is wrong, an operator can still change everything else; but
    no reload replaces what holds by what does not.
    """
    return outdated(new, now) <= set(in_force)
