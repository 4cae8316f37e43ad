"""Who is not healthy, and why: by problem, the worst first."""

from collections.abc import Iterator

from ipsec_agent.core.problems.problem import ADVICE, Severity
from ipsec_agent.core.report.findings import Finding, Kind, code, named, plain
from ipsec_agent.core.report.fleet import Fleet
from ipsec_agent.core.report.reading import Vm
from ipsec_agent.core.report.said import Problem

_LOUDNESS = {severity.value: severity for severity in Severity}


def unhealthy(fleet: Fleet) -> Iterator[Finding]:
    """One finding for each code of a problem, and for each state other than running."""
    by_code: dict[str, list[tuple[str, Problem]]] = {}
    silent: dict[str, list[str]] = {}
    for vm in fleet.vms:
        told = {one.code: one for one in reversed(vm.said.problems) if one.severity != "info"}
        for problem in told.values():
            by_code.setdefault(code(problem.code), []).append((vm.name, problem))
        if _alarming(vm, told):
            silent.setdefault(code(vm.said.state), []).append(vm.name)
    for state, names in silent.items():
        yield _of_state(state, tuple(names))
    for found_code, them in by_code.items():
        yield _of_code(found_code, them)


def _alarming(vm: Vm, told: dict[str, Problem]) -> bool:
    """Whether its state is all that it says."""
    return vm.said.state == "stopped" or (not vm.said.healthy and not told)


def _of_state(state: str, names: tuple[str, ...]) -> Finding:
    if state == "stopped":
        return Finding(
            Kind.UNHEALTHY,
            Severity.ERROR,
            f"no agent runs on {named(names)}",
            "`ipsec-agent doctor` on that VM",
            names,
            names,
        )
    return Finding(
        Kind.UNHEALTHY,
        Severity.WARNING,
        f"{state}, and not healthy: {named(names)}",
        "collect the file again in a minute; then `ipsec-agent doctor` on that VM",
        names,
        names,
    )


def _of_code(found_code: str, them: list[tuple[str, Problem]]) -> Finding:
    names = tuple(name for name, _ in them)
    severity = max((_severity(problem) for _, problem in them), key=list(Severity).index)
    first, problem = them[0]
    who = f"{first} says" if len(names) == 1 else f"{named(names)}; {first} says"
    # Its hint is not shown: what somebody types must not come from a VM.
    return Finding(
        Kind.UNHEALTHY,
        severity,
        f"{found_code}: {who} “{plain(problem.message)}”",
        f"`ipsec-agent doctor` on that VM; {found_code} in docs/problems.md",
        names,
        names,
    )


def _severity(problem: Problem) -> Severity:
    """How loud it is; a word of a later agent counts as an error."""
    if problem.code in ADVICE:
        return Severity.INFO
    return _LOUDNESS.get(problem.severity, Severity.ERROR)
