"""Who speaks clear with whom, and so what enforcing would cut off."""

from collections.abc import Iterable, Iterator

from msgspec import Struct

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.findings import Finding, Kind, ago, by_name, hubs, named
from ipsec_agent.core.report.fleet import Fleet
from ipsec_agent.core.report.reading import Vm
from ipsec_agent.core.words import several

RECENT = 600
"""Seconds for which dropped packets are a fault of now; the guard forgets them after an hour."""


class Clear(Struct, frozen=True):
    """Clear packets that one VM has counted with another.

    Attributes:
        vm: who says so.
        peer: the other one.
        way: in, out or both, as that VM sees it.
        idle: seconds since the last one, when that VM was looked at.
        passes: they pass; else that VM drops them.
        optional: they pass because IPsec is optional on that VM: enforcing would cut them off.
    """

    vm: str
    peer: str
    way: str
    packets: int
    idle: float
    passes: bool
    optional: bool


def talks(fleet: Fleet) -> Iterator[Clear]:
    """What each VM says of clear packets."""
    for vm in fleet.vms:
        if vm.said.optional is None:
            yield from _counted(fleet, vm)
            continue
        for one in vm.said.optional.would_cut_off:
            yield Clear(
                vm.name,
                fleet.name_of(one.address),
                one.way if one.way in {"in", "out", "both"} else "",
                one.packets,
                max(vm.said.time - one.last, 0.0),
                passes=True,
                optional=True,
            )


def _counted(fleet: Fleet, vm: Vm) -> Iterator[Clear]:
    found: dict[str, Clear] = {}
    guard = vm.said.guard
    for way, counted in (("in", guard.clear_in), ("out", guard.clear_out)):
        for one in counted:
            peer = fleet.name_of(one.address)
            known = found.get(peer, Clear(vm.name, peer, way, 0, one.idle, guard.passes, False))
            found[peer] = Clear(
                vm.name,
                peer,
                way if known.way == way else "both",
                known.packets + one.packets,
                min(known.idle, one.idle),
                guard.passes,
                optional=False,
            )
    yield from found.values()


def spoken(fleet: Fleet, said: Iterable[Clear]) -> Iterator[Finding]:
    """Clear packets of VMs that enforce IPsec, and the VMs that speak clear by their role."""
    enforced = [one for one in said if not one.optional]
    for passes in (True, False):
        pairs = ((one.vm, one.peer, one) for one in enforced if one.passes is passes)
        for hub, them in hubs(pairs, fleet.owners).items():
            yield _of_hub(hub, [one for _, one in them], passes=passes)
    clear = tuple(vm.name for vm in fleet.vms if vm.looked and vm.said.role == "clear")
    if clear:
        yield Finding(
            Kind.CLEAR,
            Severity.INFO,
            f"{named(clear)}: speaks clear with every VM, as its config says"
            if len(clear) == 1
            else f"{named(clear)}: they speak clear with every VM, as their configs say",
            "",
            clear,
        )


def _of_hub(hub: str, them: list[Clear], *, passes: bool) -> Finding:
    others = by_name(one.peer if one.vm == hub else one.vm for one in them)
    sayers = by_name(one.vm for one in them)
    idle = min(one.idle for one in them)
    packets = several(sum(one.packets for one in them), "clear packet")
    last = f"the last {ago(idle)}"
    if passes:
        severity, become = Severity.ERROR, "that nothing drops"
    else:
        severity = Severity.WARNING if idle <= RECENT else Severity.INFO
        become = "and dropped them"
    return Finding(
        Kind.CLEAR,
        severity,
        f"{hub} and {named(others)}: {named(sayers)} counted {packets} {become} ({last})",
        _verify(them[0]),
        (hub, *others),
        tuple(sayers),
    )


def _verify(one: Clear) -> str:
    return f"`ipsec-agent verify {one.peer}` on {one.vm}"


class Enforcing(Struct, frozen=True):
    """What the VMs say of the end of optional mode.

    Attributes:
        optional: the VMs on which it is on.
        unknown: those of them whose guard does not count.
        unread: VMs of which it is not known whether it is on.
        cut_off: pairs that speak clear because of it.
    """

    optional: tuple[str, ...]
    unknown: tuple[str, ...]
    unread: tuple[str, ...]
    cut_off: tuple[Clear, ...]


def enforcing(fleet: Fleet, said: Iterable[Clear]) -> Enforcing:
    """What the VMs say of it."""
    loose = [(vm.name, vm.said.optional) for vm in fleet.vms if vm.said.optional is not None]
    unread = (vm.name for vm in fleet.vms if not vm.looked or "optional" in vm.missing)
    return Enforcing(
        tuple(name for name, _ in loose),
        tuple(name for name, optional in loose if not optional.counted),
        tuple(unread),
        tuple(one for one in said if one.optional),
    )


def cut_off(fleet: Fleet, found: Enforcing) -> Iterator[Finding]:
    """What enforcing would cut off, by VM; and whether that is all."""
    pairs = ((one.vm, one.peer, one) for one in found.cut_off)
    for hub, them in hubs(pairs, fleet.owners).items():
        yield _cut(fleet, hub, [one for _, one in them])
    if found.unknown:
        yield Finding(
            Kind.ENFORCING,
            Severity.WARNING,
            f"what enforcing would cut off is not known on {named(found.unknown)}: its guard does"
            " not count",
            "`ipsec-agent guard up` on that VM",
            found.unknown,
        )
    yield from _never_heard(fleet)
    yield from _unseen(fleet)
    yield _outlook(fleet, found)


def _cut(fleet: Fleet, hub: str, them: list[Clear]) -> Finding:
    others = by_name(one.peer if one.vm == hub else one.vm for one in them)
    packets = several(sum(one.packets for one in them), "clear packet")
    what = "" if hub in fleet.owners else " (no file)"
    return Finding(
        Kind.ENFORCING,
        Severity.WARNING,
        f"enforcing would cut {hub}{what} off from {named(others)}: {packets}, the last"
        f" {ago(min(one.idle for one in them))}",
        f"install ipsec-agent on {hub}, or put it in no_ipsec_subnets of every VM"
        if what
        else _verify(them[0]),
        (hub, *others),
        tuple(by_name(one.vm for one in them)),
    )


def _never_heard(fleet: Fleet) -> Iterator[Finding]:
    found: dict[str, list[str]] = {}
    for vm in fleet.vms:
        for one in vm.said.optional.never_heard if vm.said.optional else ():
            found.setdefault(fleet.name_of(one.address), []).append(vm.name)
    if found:
        nobody = by_name(found)
        yield Finding(
            Kind.ENFORCING,
            Severity.INFO,
            f"packets go to {named(nobody)}, from where nothing was ever heard: perhaps nobody is"
            " there",
            "",
            (*nobody, *by_name(name for names in found.values() for name in names)),
        )


def _unseen(fleet: Fleet) -> Iterator[Finding]:
    unseen = (
        fleet.name_of(address)
        for vm in fleet.vms
        for address in (vm.said.optional.unseen if vm.said.optional else ())
    )
    names = by_name(unseen)
    if names:
        yield Finding(
            Kind.ENFORCING,
            Severity.INFO,
            f"{named(names)} once had an SA, and now there is neither one nor a clear packet",
            "",
            tuple(names),
        )


def _outlook(fleet: Fleet, found: Enforcing) -> Finding:
    """The answer to: may it be enforced?"""
    everyone = len(fleet.vms)
    if not found.optional:
        unread = f"; not known of {named(found.unread)}" if found.unread else ""
        enforced = everyone - len(found.unread)
        message = f"IPsec is enforced on {enforced} of {several(everyone, 'VM')}{unread}"
        return Finding(Kind.ENFORCING, Severity.INFO, message, "", found.unread)
    message = f"IPsec is optional on {len(found.optional)} of {several(everyone, 'VM')}"
    hint = "do what the lines above say, and collect the files again"
    if not found.cut_off and not found.unknown:
        message += ": enforcing now would cut off nobody that they know of"
        waits = _waits(fleet, found)
        hint = f"wait: {waits}" if waits else "remove `optional: true` on one VM after the other"
    return Finding(
        Kind.ENFORCING,
        Severity.INFO,
        f"{message} ({named(found.optional)})",
        hint,
        found.optional,
    )


def _waits(fleet: Fleet, found: Enforcing) -> str:
    """What nobody knows yet, though nothing speaks against enforcing."""
    if fleet.strangers:
        strangers = by_name(fleet.strangers)
        return f"collect the {'files' if len(strangers) > 1 else 'file'} of {named(strangers)}"
    return f"see to {named(found.unread)}, which did not say" if found.unread else ""
