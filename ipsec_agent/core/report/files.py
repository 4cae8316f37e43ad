"""Which files a report lacks, and which of those it has are old, doubtful or incomplete."""

from collections.abc import Iterator

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.findings import MOST_NAMED, Finding, Kind, ago, by_name, named
from ipsec_agent.core.report.fleet import Fleet
from ipsec_agent.core.report.reading import KEYS
from ipsec_agent.core.words import several

OLD = 600
"""Seconds from the middle of all times at which a file tells of another time than the others."""

SCHEMA = 1
"""The newest schema of `status --json` that this report knows."""


def lacking(fleet: Fleet) -> Iterator[Finding]:
    """The peers of which there is no file, by those who list them."""
    if not fleet.strangers:
        return
    strangers = by_name(fleet.strangers)
    by = by_name(name for names in fleet.strangers.values() for name in names)
    yield Finding(
        Kind.NO_FILE,
        Severity.WARNING,
        f"{named(strangers)} ({several(len(strangers), 'address', 'addresses')}): known to"
        f" {named(by)}",
        "collect `ipsec-agent status --json` there, too",
        tuple(strangers),
    )


def doubtful(fleet: Fleet) -> Iterator[Finding]:
    """Files that are old, that claim what others claim, or that lack something."""
    yield from _times(fleet)
    yield from _twice(fleet)
    yield from _claims(fleet)
    yield from _incomplete(fleet)


def _twice(fleet: Fleet) -> Iterator[Finding]:
    """Documents that contradict each other: one finding for each VM, however many they are."""
    claims: dict[str, list[str]] = {}
    for left, taken in fleet.twice:
        claims.setdefault(taken.name, []).append(str(left.source))
    for vm in fleet.vms:
        others = claims.get(vm.name)
        if others:
            both = "both" if len(others) == 1 else "all"
            yield Finding(
                Kind.FILE,
                Severity.WARNING,
                f"{_sources([*others, str(vm.source)])} {both} say that they are {vm.name};"
                f" {vm.source} is taken",
                f"name each file by its VM's address, such as {vm.name}.json: then no VM can claim"
                " another's",
                (vm.name,),
            )


def _sources(names: list[str]) -> str:
    *first, last = names if len(names) <= MOST_NAMED else names[:2] + names[-1:]
    more = f", {len(names) - 3} more" if len(names) > MOST_NAMED else ""
    return f"{', '.join(first)}{more} and {last}"


def _times(fleet: Fleet) -> Iterator[Finding]:
    off = [(vm.name, vm.said.time - fleet.now) for vm in fleet.vms if vm.looked]
    old = tuple(name for name, by in off if by < -OLD)
    ahead = tuple(name for name, by in off if by > OLD)
    if old:
        oldest = ago(max(-by for _, by in off))
        yield Finding(
            Kind.FILE,
            Severity.WARNING,
            f"older than most of the files: {named(old)} (the oldest was written {oldest}, counted"
            " from the middle of all)",
            "collect them again; compare the clock of that VM if that does not help",
            old,
        )
    if ahead:
        yield Finding(
            Kind.FILE,
            Severity.WARNING,
            f"newer than most of the files: {named(ahead)}",
            "collect the others again; compare the clock of that VM if that does not help",
            ahead,
        )


def _claims(fleet: Fleet) -> Iterator[Finding]:
    for vm in fleet.vms:
        taken = [address for address in vm.addresses if fleet.owners[address].name != vm.name]
        if taken:
            owners = by_name(fleet.name_of(address) for address in taken)
            yield Finding(
                Kind.FILE,
                Severity.WARNING,
                f"{vm.name} says that it also has {named(taken)}, which {named(owners)} has",
                f"`ip address` on {vm.name}",
                (vm.name, *owners),
                (vm.name,),
            )
    misnamed = tuple(
        vm.name
        for vm in fleet.vms
        if vm.source.named is not None and vm.source.named not in vm.addresses
    )
    known = tuple(
        vm.name for vm in fleet.vms if vm.name in misnamed and vm.source.named in fleet.strangers
    )
    if known:
        yield Finding(
            Kind.FILE,
            Severity.WARNING,
            f"in files named after another VM, which has no file of its own: {named(known)}",
            "collect each of these files again from the VM that it is named by, and look at that VM"
            " if it says the same",
            known,
        )
    if misnamed:
        yield Finding(
            Kind.FILE,
            Severity.INFO,
            f"in files named after an address that the VM does not have: {named(misnamed)}",
            "",
            misnamed,
        )


def _incomplete(fleet: Fleet) -> Iterator[Finding]:
    for key in KEYS:
        names = tuple(vm.name for vm in fleet.vms if key in vm.missing)
        if names:
            yield Finding(
                Kind.FILE,
                Severity.INFO,
                f"without {key}, which older agents do not tell: {named(names)}",
                "",
                names,
            )
    newer = tuple(vm.name for vm in fleet.vms if vm.said.schema > SCHEMA)
    if newer:
        yield Finding(
            Kind.FILE,
            Severity.INFO,
            f"of a schema that is newer than this program's: {named(newer)}",
            "use the newest ipsec-agent for the report",
            newer,
        )
