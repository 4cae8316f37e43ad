"""All that a report says, and the document that it makes: a stable interface with a `schema`."""

from collections.abc import Iterable
from functools import cached_property
from typing import Any

from msgspec import Struct

from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.report.alike import differences, expiring
from ipsec_agent.core.report.asymmetry import Odd, asymmetries, contradictions
from ipsec_agent.core.report.clear import Clear, Enforcing, cut_off, enforcing, spoken, talks
from ipsec_agent.core.report.files import doubtful, lacking
from ipsec_agent.core.report.findings import Finding, Kind, code, plain
from ipsec_agent.core.report.fleet import Fleet, gathered
from ipsec_agent.core.report.health import unhealthy
from ipsec_agent.core.report.reading import Flaw, Read, Vm
from ipsec_agent.core.words import several

SCHEMA = 1

_KINDS, _SEVERITIES = tuple(Kind), tuple(Severity)


class Report(Struct, frozen=True, dict=True):
    """A fleet, examined.

    Attributes:
        findings: by kind, the loudest of each first.
        flaws: what could not be read.
    """

    fleet: Fleet
    findings: tuple[Finding, ...]
    clear: tuple[Clear, ...]
    enforcing: Enforcing
    odd: tuple[Odd, ...]
    flaws: tuple[Flaw, ...]

    @property
    def well(self) -> bool:
        """Whether nothing is more than something to know."""
        return not any(one.severity is not Severity.INFO for one in self.findings)

    @cached_property
    def loudest(self) -> dict[str, Severity]:
        """By VM: the loudest finding that speaks against it, INFO left out."""
        found: dict[str, Severity] = {}
        for one in sorted(self.findings, key=lambda one: _SEVERITIES.index(one.severity)):
            if one.severity is not Severity.INFO:
                found.update(dict.fromkeys(one.subjects, one.severity))
        return found

    @property
    def verdict(self) -> str:
        """The whole in one line."""
        vms = self.fleet.vms
        healthy = sum(vm.said.healthy for vm in vms)
        passing = {frozenset((one.vm, one.peer)) for one in self.clear if one.passes}
        parts = [
            f"{several(len(vms), 'VM')}: {healthy} healthy, {len(vms) - healthy} not",
            f"{several(len(passing), 'pair')} {'speaks' if len(passing) == 1 else 'speak'} clear",
        ]
        if self.enforcing.optional:
            parts.append(f"IPsec is optional on {len(self.enforcing.optional)}")
        if self.flaws:
            parts.append(f"{several(len(self.flaws), 'document')} could not be read")
        return ", ".join(parts)


def examined(read: Read) -> Report:
    """What the documents tell together."""
    fleet = gathered(read.vms)
    clear = tuple(talks(fleet))
    loose = enforcing(fleet, clear)
    odd = tuple(contradictions(fleet))
    findings: Iterable[Finding] = (
        *unhealthy(fleet),
        *spoken(fleet, clear),
        *(cut_off(fleet, loose) if fleet.vms else ()),
        *differences(fleet),
        *expiring(fleet),
        *asymmetries(odd),
        *lacking(fleet),
        *doubtful(fleet),
    )
    return Report(fleet, tuple(sorted(findings, key=_order)), clear, loose, odd, read.flaws)


def _order(one: Finding) -> tuple[int, int]:
    return _KINDS.index(one.kind), -_SEVERITIES.index(one.severity)


def document(report: Report) -> dict[str, Any]:
    """What `report --json` prints."""
    loose = report.enforcing
    return {
        "schema": SCHEMA,
        "well": report.well,
        "verdict": report.verdict,
        "time": report.fleet.now,
        "vms": [_vm(vm) for vm in report.fleet.vms],
        "findings": [
            {
                "kind": one.kind.value,
                "severity": one.severity.value,
                "message": one.message,
                "hint": one.hint,
                "vms": list(one.vms),
            }
            for one in report.findings
        ],
        "clear": [
            {
                "vm": one.vm,
                "peer": one.peer,
                "way": one.way,
                "packets": one.packets,
                "idle": one.idle,
                "passes": one.passes,
                "optional": one.optional,
            }
            for one in report.clear
        ],
        "enforcing": {
            "optional": list(loose.optional),
            "unknown": list(loose.unknown),
            "unread": list(loose.unread),
            "cut_off": sorted({(one.vm, one.peer) for one in loose.cut_off}),
        },
        "unreadable": [{"where": one.where, "message": one.message} for one in report.flaws],
    }


def _vm(vm: Vm) -> dict[str, Any]:
    said = vm.said
    return {
        "name": vm.name,
        "file": vm.source.file,
        "line": vm.source.line,
        "addresses": list(said.addresses),
        "time": said.time,
        "state": code(said.state),
        "healthy": said.healthy,
        "role": code(said.role) if said.role else "",
        "version": code(said.version) if said.version else "",
        "charon": code(said.charon.version) if said.charon and said.charon.version else "",
        "peers": sum(peer.up for peer in said.peers),
        "problems": [code(one.code) for one in said.problems],
        "fingerprint": plain(said.fingerprint.config) if said.fingerprint else "",
        "missing": list(vm.missing),
    }
