"""Which VMs have another config, certificate, CA or version than the others: the minority."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

from msgspec import Struct

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.findings import Finding, Kind, by_name, code, named, plain
from ipsec_agent.core.report.fleet import Fleet
from ipsec_agent.core.report.reading import Vm
from ipsec_agent.core.words import several

SOON = 14
"""Days before the end of a certificate at which it is a finding, as on the VM by default."""

MOST_CERTIFICATES = 5
"""Certificates that are shown of those that last."""


class Aspect(Struct, frozen=True):
    """Something that should be equal on all VMs.

    Attributes:
        what: it is, as the begin of a sentence.
        of: its value on a VM, None where it is not known.
        shown: a value says something to a person.
    """

    kind: Kind
    severity: Severity
    what: str
    of: Callable[[Vm], str | None]
    hint: str
    shown: bool = False


def _printed(name: str) -> Callable[[Vm], str | None]:
    def of(vm: Vm) -> str | None:
        found = vm.said.fingerprint
        return None if found is None else str(getattr(found, name)).lower()

    return of


def _authorities(vm: Vm) -> str | None:
    found = vm.said.fingerprint
    return None if found is None else "\n".join(sorted(set(found.authorities)))


_SAME = "give these VMs the same config; `ipsec-agent check` on each shows its lists"

ASPECTS = (
    Aspect(
        Kind.CONFIG,
        Severity.ERROR,
        "ipsec_subnets and no_ipsec_subnets",
        _printed("lists"),
        _SAME,
    ),
    Aspect(Kind.CONFIG, Severity.WARNING, "the proposals", _printed("proposals"), _SAME),
    Aspect(
        Kind.CONFIG,
        Severity.INFO,
        "optional",
        _printed("optional"),
        "remove `optional: true` where it is left, once nothing would be cut off",
        shown=True,
    ),
    Aspect(Kind.CONFIG, Severity.INFO, "agent.outside", _printed("outside"), "", shown=True),
    Aspect(
        Kind.CONFIG,
        Severity.WARNING,
        "force_udp_encapsulation",
        _printed("force_udp_encapsulation"),
        _SAME,
        shown=True,
    ),
    Aspect(
        Kind.CONFIG,
        Severity.WARNING,
        "agent.guard",
        lambda vm: vm.said.guard.mode or None,
        "remove `guard: none`: without the guard only charon's policies keep packets from leaving"
        " in clear",
        shown=True,
    ),
    Aspect(
        Kind.CONFIG,
        Severity.INFO,
        "the version of ipsec-agent",
        lambda vm: vm.said.version or None,
        "",
        shown=True,
    ),
    Aspect(
        Kind.CONFIG,
        Severity.INFO,
        "the version of charon",
        lambda vm: (vm.said.charon.version or None) if vm.said.charon else None,
        "",
        shown=True,
    ),
    Aspect(
        Kind.CERTIFICATE,
        Severity.WARNING,
        "the CAs that are trusted",
        _authorities,
        "while CAs are rotated this is as it should be; docs/certificates.md has the order",
    ),
)


def differences(fleet: Fleet) -> Iterator[Finding]:
    """One finding for each aspect in which not all VMs are alike."""
    for aspect in ASPECTS:
        groups = _groups(fleet, aspect.of)
        if len(groups) > 1:
            yield _difference(aspect, groups)
    yield from _certificates(fleet)
    yield from _behind(fleet)


def _groups(fleet: Fleet, of: Callable[[Vm], str | None]) -> list[tuple[str, list[str]]]:
    """The values, the most common first, each with its VMs."""
    found: dict[str, list[str]] = {}
    for vm in fleet.vms:
        value = of(vm)
        if value is not None:
            found.setdefault(value, []).append(vm.name)
    return sorted(found.items(), key=lambda group: -len(group[1]))


def _difference(aspect: Aspect, groups: list[tuple[str, list[str]]]) -> Finding:
    (value, most), rest = groups[0], groups[1:]
    common = f" ({code(value)})" if aspect.shown else ""
    alike = f"{len(most)} of {sum(len(them) for _, them in groups)} VMs are alike"
    if len(rest[0][1]) == len(most):
        # Neither is the minority.
        alike, common = _have(most, code(value) if aspect.shown else "one value"), ""
    others = [_have(them, code(other) if aspect.shown else "another value") for other, them in rest]
    message = f"{aspect.what}: {alike}{common}; {'; '.join(others[:4])}"
    if len(others) > len(others[:4]):
        message += f"; and {len(others) - 4} more values"
    names = tuple(name for _, them in rest for name in them)
    return Finding(aspect.kind, aspect.severity, message, aspect.hint, names)


def _have(names: list[str], what: str) -> str:
    return f"{named(names)} {'has' if len(names) == 1 else 'have'} {what}"


def _certificates(fleet: Fleet) -> Iterator[Finding]:
    groups = _groups(fleet, _printed("certificate"))
    if len(groups) > 1 and len(groups[0][1]) == 1:
        message = f"each of {several(len(groups), 'VM')} has a certificate of its own"
        yield Finding(Kind.CERTIFICATE, Severity.INFO, message)
    elif len(groups) > 1:
        aspect = Aspect(
            Kind.CERTIFICATE,
            Severity.WARNING,
            "this VM's certificate",
            _printed("certificate"),
            "`ipsec-agent certs show` on each; while certificates are rotated this is as it should"
            " be",
        )
        yield _difference(aspect, groups)


def _behind(fleet: Fleet) -> Iterator[Finding]:
    names = tuple(vm.name for vm in fleet.vms if vm.said.rotation.behind)
    if names:
        pairs = sum(vm.said.rotation.behind for vm in fleet.vms)
        yield Finding(
            Kind.CERTIFICATE,
            Severity.INFO,
            f"{several(pairs, 'SA')} of {named(names)} {'is' if pairs == 1 else 'are'} of a"
            " certificate that is no longer in force",
            "the agent moves them by itself; `ipsec-agent renew` does it now",
            names,
        )


def expiring(fleet: Fleet) -> Iterator[Finding]:
    """The certificates by their ends: all that end soon, and the next few."""
    found: dict[tuple[datetime, str, str], list[str]] = {}
    for vm in fleet.vms:
        for one in vm.said.certificates:
            key = _utc(one.not_after), one.subject, one.role
            found.setdefault(key, []).append(vm.name)
    now = datetime.fromtimestamp(fleet.now, UTC)
    soon = now + timedelta(days=SOON)
    for number, ((end, subject, role), names) in enumerate(sorted(found.items())):
        if number >= MOST_CERTIFICATES and end > soon:
            break
        yield _end(end, now, f"{plain(subject, 120)} ({code(role)})", by_name(names))


def _utc(time: datetime) -> datetime:
    try:
        return time.astimezone(UTC)
    except OverflowError:
        # Of the first or the last day that there is.
        return time.replace(tzinfo=UTC)


def _end(end: datetime, now: datetime, what: str, names: list[str]) -> Finding:
    days = (end - now) / timedelta(days=1)
    if days < 0:
        severity, says = Severity.ERROR, f"EXPIRED {-days:.1f} days ago"
    else:
        severity = Severity.WARNING if days < SOON else Severity.INFO
        says = f"ends in {int(days)} days" if days >= 2 else f"ends in {int(days * 24)} hours"  # noqa: PLR2004
    return Finding(
        Kind.EXPIRES,
        severity,
        f"{what} {says} ({end:%Y-%m-%d}): {named(names)}",
        "docs/certificates.md says how to rotate it" if severity is not Severity.INFO else "",
        tuple(names),
        tuple(names),
    )
