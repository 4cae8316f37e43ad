"""The questions that tell whether a VM is as it was before a fault.

Each asks the kernel and charon, never the agent.
"""

import contextlib
import socket
import time
from collections.abc import Callable, Sequence

from tests.charon.nodes import ip
from tests.lab.bed import TOWARDS_A, Bed
from tests.lab.floods import Flood
from tests.lab.truth import (
    DELETE_POLICY,
    NEW_POLICY,
    alive,
    child_sas,
    guard_table,
    sas,
    stopped,
    traps,
)

Question = Callable[[], bool | float]
"""Whether all is as it was; perhaps as the moment from which it is known to be, and not as True."""

RECENT = 0.3
"""Seconds after an arrival in which a flood still counts as one that arrives."""


def policies_there(bed: Bed) -> Question:
    """Every policy that stood by the config is there again, and requires what it required."""
    wanted = bed.traps()
    return lambda: wanted <= bed.kernel.policies()


def table_there(bed: Bed) -> Question:
    """The guard's table is what it was, and is not another one with the same text.

    Where it went and came back between two looks, the first look after that says no.
    """
    bed.tables.any()
    wanted, handle = guard_table(bed.a.name)
    assert "drop" in wanted
    known, changed, healed = True, False, 0.0

    def whole() -> bool | float:
        nonlocal handle, known, changed, healed
        moment, before = healed or time.monotonic(), known
        healed = 0.0
        if bed.tables.any() or changed:
            moment = time.monotonic()
            text, now = guard_table(bed.a.name)
            known, replaced = text == wanted, now != handle
            # A listing takes its time in the guest; what was listed stood before, if nothing came.
            changed = bed.tables.any()
            if changed:
                moment = time.monotonic()
            if known:
                handle = now
                if before and replaced:
                    healed = moment
                    return False
        return moment if known else False

    return whole


def no_lost_children(bed: Bed) -> Question:
    """The kernel has the SAs of every CHILD_SA that charon believes in."""

    def whole() -> bool:
        children = [spis for sa in sas(bed.a) for spis in sa.children.values()]
        believed = {spi for spis in children for spi in spis}
        return believed <= bed.kernel.spis()

    return whole


def charon_loaded(bed: Bed) -> Question:
    """A charon that lives and answers has the traps, and so has the kernel."""
    names, wanted = traps(bed.a), bed.traps()
    assert names
    return lambda: traps(bed.a) >= names and wanted <= bed.kernel.policies()


def charon_runs(bed: Bed) -> Question:
    """The charon that was is not stopped."""
    pid = bed.a.charon_pid
    return lambda: not stopped(pid)


def same_charon(bed: Bed) -> Question:
    """The charon that was lives, and no policy is missing."""
    wanted, pid = bed.traps(), bed.a.charon_pid
    return lambda: alive(pid) and wanted <= bed.kernel.policies()


def arrives(bed: Bed) -> Question:
    """Something of each flood has arrived within the last moments."""
    return _arrives(list(bed.floods.values()))


def arrives_at_a(bed: Bed) -> Question:
    """The same of the floods towards VM a: the others are held where it dies."""
    return _arrives([flood for name, flood in bed.floods.items() if name in TOWARDS_A])


def a_begins(bed: Bed) -> Question:
    """The same, and once its charon is another one, VM a has begun an SA of those that it has.

    Its peers begin one, too, as soon as their DPD has noticed.
    """
    flows, pid = arrives_at_a(bed), bed.a.charon_pid

    def whole() -> bool:
        if not flows():
            return False
        if alive(pid):
            return True
        with contextlib.suppress(OSError):
            return any(sa.begun_here and sa.children for sa in sas(bed.a))
        return False

    return whole


def _arrives(floods: Sequence[Flood]) -> Question:
    return lambda: all(time.monotonic() - one.arrived_last() < RECENT for one in floods)


def policies_replaced(bed: Bed) -> Question:
    """Once told of another config: the kernel has told of a trap that went, and of one that came.

    Of one that went it tells no templates; that of an SA does not count.
    """
    seen = {DELETE_POLICY: 0, NEW_POLICY: 0}
    bed.events.new()

    def whole() -> bool:
        for kind, entry in bed.events.new():
            if entry.direction == 1 and not entry.of_hosts and kind in seen:
                seen[kind] += 1
        return not bed.told or (all(seen.values()) and bool(bed.traps()))

    return whole


def sas_replaced(bed: Bed) -> Question:
    """Once SAs end: VM a has CHILD_SAs, none of those that end, and every flood arrives."""
    flows = arrives(bed)

    def whole() -> bool:
        if not bed.ended:
            return True
        now = child_sas(bed.a)
        return bool(now) and not now & bed.ended and bool(flows())

    return whole


def address_guarded(number: int, bed: Bed) -> Question:
    """Wherever VM a has this address, it has its own trap for it.

    The first look that finds the address says no: its trap may have come meanwhile, too.
    """
    address = bed.setting.address(number)
    packed = _packed(address)
    had = False

    def whole() -> bool:
        nonlocal had
        before, had = had, bool(ip("-o", "addr", "show", "to", address, netns=bed.a.name))
        guarded = any(
            entry.direction == 1 and entry.selector[16:32] == packed and entry.templates
            for entry in bed.kernel.policies()
        )
        return not had or (before and guarded)

    return whole


def _packed(address: str) -> bytes:
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    return socket.inet_pton(family, address).ljust(16, b"\0")
