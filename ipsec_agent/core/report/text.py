"""The report for a person: the verdict, what is wrong by kind, and one line for each VM."""

from collections.abc import Iterator

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.examined import Report
from ipsec_agent.core.report.findings import TITLES, Kind, chosen, code
from ipsec_agent.core.report.reading import Vm
from ipsec_agent.core.words import several

MOST_LINES = 20
"""Findings of a kind that are shown."""

MOST_VMS = 40
"""VMs that have a line of their own; all that are in a loud finding, as far as there is room."""


def text(report: Report) -> str:
    """The report as lines."""
    return "".join(f"{line}\n" for line in _lines(report))


def _lines(report: Report) -> Iterator[str]:
    yield report.verdict
    for kind in Kind:
        found = [one for one in report.findings if one.kind is kind]
        if not found:
            continue
        yield ""
        yield TITLES[kind]
        for one in chosen(found, MOST_LINES):
            mark = "" if one.severity is Severity.INFO else f"{one.severity.value.upper()} "
            yield f"  {mark}{one.message}"
            if one.hint:
                yield f"    to do: {one.hint}"
        if len(found) > MOST_LINES:
            yield f"  and {len(found) - MOST_LINES} more; --json has all"
    yield from _vms(report)


def _vms(report: Report) -> Iterator[str]:
    vms = sorted(report.fleet.vms, key=lambda vm: vm.name not in report.loudest)[:MOST_VMS]
    if not vms:
        return
    yield ""
    yield "VMs"
    width = max(len(vm.name) for vm in vms)
    for vm in vms:
        loud = report.loudest.get(vm.name)
        yield f"  {vm.name:{width}}  {loud.value if loud else 'ok':8}  {_line(vm)}"
    if len(report.fleet.vms) > MOST_VMS:
        yield f"  and {len(report.fleet.vms) - MOST_VMS} more; --html and --json have all"


def _line(vm: Vm) -> str:
    up = sum(peer.up for peer in vm.said.peers)
    what = (
        f"{code(vm.said.state)}, SAs with {several(up, 'peer')}"
        if vm.looked
        else code(vm.said.state)
    )
    return what if vm.name == str(vm.source) else f"{what} ({vm.source})"
