"""All VMs of a report together: who is who, and what time it is."""

from collections.abc import Iterable, Iterator
from functools import cached_property
from statistics import median_high

from msgspec import Struct

from ipsec_agent.core.report.findings import by_name
from ipsec_agent.core.report.reading import Vm
from ipsec_agent.core.report.said import Peer


class Fleet(Struct, frozen=True, dict=True):
    """The VMs, each once, by their names.

    Attributes:
        twice: documents that are not taken, each with that which is: both claim one address.
    """

    vms: tuple[Vm, ...] = ()
    twice: tuple[tuple[Vm, Vm], ...] = ()

    @cached_property
    def owners(self) -> dict[str, Vm]:
        """By address. A VM has the address that it is named by, whoever else claims it."""
        owners = {vm.name: vm for vm in self.vms}
        for vm in self.vms:
            for address in vm.addresses:
                owners.setdefault(address, vm)
        return owners

    @cached_property
    def partners(self) -> dict[str, dict[str, Peer]]:
        """By name of a VM: its peers by theirs; of a peer's addresses one that is up counts."""
        return {vm.name: self._peers(vm) for vm in self.vms}

    def _peers(self, vm: Vm) -> dict[str, Peer]:
        found: dict[str, Peer] = {}
        for peer in vm.said.peers:
            name = self.name_of(peer.address)
            if name not in found or not found[name].up:
                found[name] = peer
        found.pop(vm.name, None)
        return found

    def name_of(self, address: str) -> str:
        """The name of the VM that has the address, or the address."""
        owner = self.owners.get(address)
        return owner.name if owner else address

    @cached_property
    def strangers(self) -> dict[str, list[str]]:
        """By address without a file: the VMs that have it as a peer, or that hear from it."""
        found: dict[str, dict[str, None]] = {}
        for vm in self.vms:
            for address in _heard_of(vm):
                if address not in self.owners:
                    found.setdefault(address, {})[vm.name] = None
        return {address: list(names) for address, names in found.items()}

    @cached_property
    def now(self) -> float:
        """The middle of the VMs' times: one whose clock is wrong does not move it far."""
        times = [vm.said.time for vm in self.vms if vm.looked]
        return median_high(times) if times else 0.0


def _heard_of(vm: Vm) -> Iterator[str]:
    """The addresses at which another VM is, by the word of this one."""
    said = vm.said
    # One that is gone may have been deleted.
    yield from (peer.address for peer in said.peers if peer.state != "gone")
    yield from (one.address for one in said.guard.clear_in)
    yield from (one.address for one in (said.optional.would_cut_off if said.optional else ()))


def gathered(vms: Iterable[Vm]) -> Fleet:
    """The VMs, each once: where two documents claim one address, the better witness is taken."""
    found: dict[str, Vm] = {}
    twice = []
    for vm in vms:
        other = found.get(vm.name)
        if other is None:
            found[vm.name] = vm
            continue
        taken, left = (vm, other) if _weight(vm) > _weight(other) else (other, vm)
        found[vm.name] = taken
        twice.append((left, taken))
    return Fleet(tuple(found[name] for name in by_name(found)), tuple(twice))


def _weight(vm: Vm) -> tuple[bool, float]:
    """Who collects the files gives them their names, and a VM only what is in them."""
    return vm.source.named == vm.name, vm.said.time
