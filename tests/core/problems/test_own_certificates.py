"""charon's complaint about a certificate is told of the peer only where it is not about our own."""

from datetime import UTC, datetime

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import CertificateFacts
from ipsec_agent.core.health import Memory
from ipsec_agent.core.problems.own_certificates import is_own
from ipsec_agent.core.problems.peer_faults import Fault, Suspect
from tests.core.problems.test_peer_faults import P, line
from tests.vm import NOW, healthy_vm

OWN = CertificateFacts(
    "CN=vm",
    "CN=ca",
    "instance",
    "1",
    datetime(2026, 3, 4, 3, 10, 45, tzinfo=UTC),
    datetime(2026, 11, 9, 3, 10, 45, tzinfo=UTC),
)


def says(begin: str, end: str) -> str:
    """What charon says of dates (x509 credentials)."""
    return f"subject certificate invalid (valid from {begin} to {end})"


OURS = says("Mar 04 03:10:45 2026", "Nov 09 03:10:45 2026")


@pytest.mark.parametrize(
    ("text", "own"),
    [
        (OURS, True),
        # Local time, with summer time at one end; a zone of half an hour.
        (says("Mar 04 04:10:45 2026", "Nov 09 04:10:45 2026"), True),
        (says("Mar 04 04:10:45 2026", "Nov 09 05:10:45 2026"), True),
        (says("Mar 04 08:40:45 2026", "Nov 09 08:40:45 2026"), True),
        (says("Mar 04 03:10:46 2026", "Nov 09 03:10:45 2026"), False),
        (says("Mar 04 03:10:45 2026", "Nov 09 03:10:46 2026"), False),
        (says("Mar 04 03:10:45 2026", "Nov 10 03:10:45 2026"), False),
        (says("Mar 05 03:10:45 2026", "Nov 10 03:10:45 2026"), False),
        (says("Mar 04 03:10:45 2026", "Nov 09 09:10:45 2026"), False),
        (says("Mar 04", "Nov 09"), False),
        ("subject certificate invalid", False),
    ],
)
def test_dates(text: str, *, own: bool) -> None:
    """Both must be those of one certificate, in any zone."""
    assert is_own(text, (OWN,)) is own
    assert not is_own(text, ())


def test_the_peer_is_not_blamed_for_our_certificate() -> None:
    """Neither by a new line nor by a fault that was kept; it is for its own."""
    theirs = healthy_vm()
    ours = replace(theirs, config=replace(theirs.config, certificates=(OWN,)))
    said = line("peer-certificate-invalid", 0, text=OURS)
    others = replace(said, text=says("Mar 04 03:10:45 2026", "Nov 08 03:10:45 2026"))
    kept = Memory(suspects=(Suspect(P, (Fault(said, NOW),)),))

    assert not ours.assess(lines=(said,)).memory.suspects
    assert not ours.assess(kept).memory.suspects
    assert ours.assess(lines=(others,)).memory.suspects
    for assessed in (theirs.assess(lines=(said,)), theirs.assess(kept)):
        assert assessed.memory.suspects
