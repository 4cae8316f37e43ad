"""Certificates that end: how loud it is, at each border, and whose they are."""

from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace

from ipsec_agent.core.clock import ClockFacts, worth_saving
from ipsec_agent.core.config import CertificateFacts, ExpiryPeriods, ListedCertificate
from ipsec_agent.core.manifest import certificate_rules as rules
from ipsec_agent.core.peer_certificates import clock_facts
from ipsec_agent.core.problems.expiry import expiry_problems
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.status import document
from ipsec_agent.verbs.status_text import text
from tests.certificates import make_ca
from tests.configs import FACTS, config
from tests.core.test_status import snapshot
from tests.vm import NOW, healthy_vm, with_sa

MOMENT = timedelta(seconds=1)
CRITICAL, ERROR, WARNING, INFO = (
    Severity.CRITICAL,
    Severity.ERROR,
    Severity.WARNING,
    Severity.INFO,
)


def ending(left: timedelta, role: str = "instance") -> CertificateFacts:
    """A certificate that ends so long after NOW."""
    return replace(FACTS, role=role, not_after=datetime.fromtimestamp(NOW, UTC) + left)


def problem(left: timedelta, role: str = "instance", **periods: int) -> Problem | None:
    """What is said of one."""
    settings = replace(config(facts=ending(left, role)), expiry=ExpiryPeriods(**periods))
    found = expiry_problems(settings, healthy_vm().observed)
    return found[0] if found else None


@pytest.mark.parametrize("role", ["instance", "intermediate", "authority"])
@pytest.mark.parametrize(
    ("days", "before", "severity"),
    [(30, None, INFO), (14, INFO, WARNING), (7, WARNING, ERROR), (3, ERROR, CRITICAL)],
)
def test_borders(days: int, before: Severity | None, severity: Severity, role: str) -> None:
    """A second before a border it is as loud as it was, on the border louder; of every kind."""
    earlier, now = problem(timedelta(days) + MOMENT, role), problem(timedelta(days), role)

    assert (earlier.severity if earlier else None) is before
    assert now is not None
    assert (now.code, now.severity) == ("certificate-expires", severity)
    assert role in now.message


def test_the_end() -> None:
    """To the second of its end it holds; then it has expired, and the day is named."""
    last, over = problem(timedelta()), problem(-MOMENT)

    assert last is not None
    assert over is not None
    assert (last.code, last.severity) == ("certificate-expires", CRITICAL)
    assert (over.code, over.severity) == ("certificate-expired", CRITICAL)
    assert over.message.endswith("expired on 2027-01-15")
    assert "`ipsec-agent reload`" in over.hint


def test_own_periods() -> None:
    """The properties of the config move the borders."""
    found = problem(timedelta(days=40), info=90, warn=60, error=40, critical=1)

    assert found is not None
    assert found.severity is ERROR


@pytest.mark.parametrize(
    ("left", "words"),
    [
        (30.0, "30 days"),
        (29.99, "29 days"),
        (1.0, "1 day"),
        (0.99, "23 hours"),
        (0.4, "9 hours"),
        (1.5 / 24, "1 hour"),
        (0.001, "less than an hour"),
    ],
)
def test_words(left: float, words: str) -> None:
    """Never more than there is: days, and hours on the last one; for `check` and status alike."""
    ends = timedelta(days=left)
    found = problem(ends)
    assert found is not None
    assert found.message.endswith(f", in {words}")

    ca = make_ca(days=1, not_before=datetime.fromtimestamp(NOW, UTC) - timedelta(days=1) + ends)
    (complaint,) = rules.ending(
        ca.certificate, "", datetime.fromtimestamp(NOW, UTC), 30, instance=False
    )
    assert complaint.message.endswith(f", in {words}")
    shown = document(snapshot(healthy_vm(config(facts=ending(ends)))))
    assert f"instance     CN=vm: {words} left\n" in text(shown)
    assert shown["certificates"][0]["days_left"] <= left


def test_over_in_words() -> None:
    """From its end on, all say that it has ended."""
    shown = document(snapshot(healthy_vm(config(facts=ending(-MOMENT)))))

    assert shown["certificates"][0]["days_left"] == -0.1
    assert "CN=vm: EXPIRED less than an hour ago\n" in text(shown)


@pytest.mark.parametrize(
    ("role", "issuer", "left", "hint"),
    [
        ("intermediate", "CN=root", 9, "CN=root, which signed it, sign it again with the same key"),
        ("intermediate", "CN=root", 9, "place in instance_certificate: new handshakes fail once"),
        ("authority", "CN=root", 9, "in its place in ca_certificates: new handshakes fail once"),
        ("intermediate", "CN=root", -9, "place in instance_certificate now: new handshakes fail,"),
        ("authority", "CN=vm", 9, "rotate it: new handshakes"),
        ("instance", "CN=root", 9, "rotate it: new handshakes"),
    ],
)
def test_how_it_is_renewed(role: str, issuer: str, left: int, hint: str) -> None:
    """An intermediate by its issuer, where the config has it; a root by the CA's procedure."""
    facts = replace(ending(timedelta(left), role), issuer=issuer)

    (found,) = expiry_problems(config(facts=facts), healthy_vm().observed)

    assert hint in found.hint


def shown(left: timedelta, name: str, serial: str = "99") -> ListedCertificate:
    """A peer's certificate."""
    facts = replace(ending(left, "peer"), subject=f"CN={name}", serial=serial)
    return ListedCertificate((name,), facts)


def of_peers(*certificates: ListedCertificate, identity: str = "CN=peer") -> list[Problem]:
    """What is said where charon lists these, and one peer has an SA."""
    vm = with_sa(healthy_vm())
    charon = vm.observed.charon
    assert charon is not None
    sas = tuple(replace(sa, remote_id=identity) for sa in charon.sas)
    vm = vm.but(charon=replace(charon, sas=sas, certificates=certificates))
    return list(expiry_problems(vm.config, vm.observed))


@pytest.mark.parametrize(
    ("days", "severity"), [(31, None), (30, INFO), (14, WARNING), (2, WARNING), (-1, WARNING)]
)
def test_peers(days: int, severity: Severity | None) -> None:
    """What a peer has shown is a warning at the most: the peer says more of its own."""
    found = of_peers(shown(timedelta(days), "peer"))

    assert [(one.code, one.severity) for one in found] == (
        [("peer-certificate-expires", severity)] if severity else []
    )


def test_peers_together() -> None:
    """One problem for all of them, however many there are; the first end is named first."""
    vm = healthy_vm()
    for last in range(10, 15):
        vm = with_sa(vm, f"10.0.0.{last}")
    charon = vm.observed.charon
    assert charon is not None
    sas = tuple(replace(sa, remote_id=f"CN=vm{number}") for number, sa in enumerate(charon.sas))
    certificates = tuple(shown(timedelta(20 - number), f"vm{number}") for number in range(5))
    observed = replace(vm.observed, charon=replace(charon, sas=sas, certificates=certificates))

    (found,) = expiry_problems(vm.config, observed)

    assert found.message.startswith(
        "peers have 5 certificates to be renewed: CN=vm4 ends on 2027-01-31, "
    )
    assert found.message.endswith(" and 2 more")


def test_a_peer_that_is_gone() -> None:
    """charon keeps certificates of peers that it has no SA with any more; these do not count."""
    assert of_peers(shown(timedelta(1), "gone")) == []
    assert of_peers(shown(timedelta(1), "peer"), identity="") == []


def test_a_peer_that_was_rotated() -> None:
    """Of several certificates of one name the newest counts: charon keeps the old one for long."""
    old = shown(timedelta(1), "peer")
    new = replace(
        shown(timedelta(300), "peer", "9a"),
        facts=replace(shown(timedelta(300), "peer", "9a").facts, not_before=FACTS.not_after),
    )

    assert of_peers(old, new) == of_peers(new, old) == []


def test_our_own() -> None:
    """One that is ours, too, is said once, as ours."""
    vm = with_sa(healthy_vm(config(facts=ending(timedelta(1)))))
    charon = vm.observed.charon
    assert charon is not None
    sas = tuple(replace(sa, remote_id="CN=vm") for sa in charon.sas)
    own = ListedCertificate(("vm",), replace(vm.config.certificates[0], role="peer"))
    observed = replace(vm.observed, charon=replace(charon, sas=sas, certificates=(own,)))

    assert [one.code for one in expiry_problems(vm.config, observed)] == ["certificate-expires"]


def by_the_clock(facts: CertificateFacts, clock: ClockFacts) -> list[Problem]:
    """What is said of one certificate where others tell another time than the clock."""
    vm = healthy_vm(config(facts=facts)).but(clock=clock)
    return list(expiry_problems(vm.config, vm.observed))


def test_a_wrong_clock() -> None:
    """It is named first, as loud as what it makes of the certificates; nobody is sent to the CA."""
    ahead = ClockFacts(rtc=NOW - 400 * 86_400)

    fine = by_the_clock(FACTS, ahead)
    assert [(one.code, one.severity) for one in fine] == [("clock-wrong", WARNING)]
    assert (
        "the clock says 2027-01-15 08:00 UTC; the RTC says 2025-12-11 08:00 UTC" in fine[0].message
    )

    wrong, over = by_the_clock(ending(-MOMENT), ahead)
    assert (wrong.code, wrong.severity) == ("clock-wrong", CRITICAL)
    assert over.code == "certificate-expired"
    assert over.message.endswith("by this VM's clock, which seems wrong")
    assert over.hint.startswith("compare the clock with another VM's first")
    _, soon = by_the_clock(ending(timedelta(days=9)), ahead)
    assert soon.hint == over.hint


def test_a_clock_that_was_set_back() -> None:
    """A peer has proved itself with a certificate that begins only later."""
    later = datetime.fromtimestamp(NOW, UTC) + timedelta(days=9)
    vm = with_sa(healthy_vm()).but(clock=ClockFacts(rtc=NOW))
    charon = vm.observed.charon
    assert charon is not None

    def said(age: int, identity: str) -> list[str]:
        sas = tuple(replace(sa, remote_id=identity, age=age) for sa in charon.sas)
        one = shown(timedelta(99), "peer")
        one = replace(one, facts=replace(one.facts, not_before=later))
        seen = replace(vm.observed, charon=replace(charon, sas=sas, certificates=(one,)))
        found = [one.message for one in expiry_problems(vm.config, seen)]
        # As bad a time is not written down.
        assert worth_saving(NOW, clock_facts(seen)) is not bool(found)
        return found

    (message,) = said(9, "CN=peer")
    assert "a certificate that a peer has shown begins on 2027-01-24 08:00 UTC" in message
    assert said(0, "CN=peer") == []
    assert said(9, "CN=other") == []


def test_not_valid_yet() -> None:
    """A certificate that has not begun is critical; where the RTC agrees, the clock is right."""
    early = replace(FACTS, not_before=datetime.fromtimestamp(NOW, UTC) + timedelta(days=9))

    (found,) = by_the_clock(early, ClockFacts(rtc=NOW))
    assert (found.code, found.severity) == ("certificate-not-valid-yet", CRITICAL)
    assert found.message.endswith("is not valid before 2027-01-24 08:00 UTC")
    assert found.hint == "wait, or set this VM's clock"

    begins = ClockFacts(begins=early.not_before.timestamp())
    assert [one.code for one in by_the_clock(early, begins)] == [
        "clock-wrong",
        "certificate-not-valid-yet",
    ]
