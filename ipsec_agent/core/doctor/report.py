"""All checks of `doctor`, and the document that they make: a stable interface with a `schema`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from ipsec_agent.core.doctor import agent, machine
from ipsec_agent.core.doctor.facts import Facts, Finding
from ipsec_agent.core.doctor.holes import strongswan
from ipsec_agent.core.problems.problem import Severity

SCHEMA = 1

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: dict[str, tuple[str, tuple[Check, ...]]] = {
    "config": ("the config is there and valid", (agent.config,)),
    "agent": ("an agent runs", (agent.agent,)),
    "problems": ("it reports no problem", (agent.problems, agent.by_oneself)),
    "guard": ("the guard is up, and saved for the next boot", (agent.guard,)),
    "boot": ("systemd starts guard and agent at boot", (agent.boot,)),
    "machine": ("this VM can do what the config asks for", (agent.machine,)),
    "other-ipsec": ("no other IPsec program runs", (machine.others,)),
    "firewall": ("no other rule stops ESP or IKE", (machine.firewall,)),
    "cpu": ("the CPU has AES in hardware, and it is used", (machine.cpu,)),
    "stop": ("nothing hangs when IPsec stops", (machine.stop,)),
    "plugins": ("charon loads no foreign plugin", (machine.plugins,)),
    "fips": ("the proposals are allowed in FIPS mode", (machine.fips,)),
    "strongswan": ("strongSwan has no known hole", (strongswan,)),
    "unread": ("everything could be read", (machine.tools,)),
}
"""Name, what it says where all is well, and the functions."""

QUIET = frozenset({"container-not-guarded", "lockout-risk"})
"""Codes of problems that are advice; a VM that has one is healthy."""


def examined(facts: Facts) -> dict[str, tuple[Finding, ...]]:
    """What each check finds, the loudest first."""
    order = tuple(Severity)
    return {
        name: tuple(
            sorted(
                (finding for check in checks for finding in check(facts)),
                key=lambda finding: -order.index(finding.severity),
            )
        )
        for name, (_, checks) in CHECKS.items()
    }


def loud(findings: Iterable[Finding]) -> bool:
    """Whether one is more than something to know."""
    return any(
        finding.severity is not Severity.INFO and finding.check not in QUIET for finding in findings
    )


def document(found: dict[str, tuple[Finding, ...]]) -> dict[str, Any]:
    """What `doctor --json` prints."""
    return {
        "schema": SCHEMA,
        "well": not any(map(loud, found.values())),
        "checks": [
            {
                "name": name,
                "well": not findings,
                "findings": [
                    {
                        "code": one.check,
                        "severity": one.severity.value,
                        "message": one.message,
                        "command": one.command,
                        "hint": one.hint,
                    }
                    for one in findings
                ],
            }
            for name, findings in found.items()
        ],
    }


def text(found: dict[str, tuple[Finding, ...]]) -> str:
    """The same for a person: what is wrong first, then what is well in one line each."""
    everything = [one for findings in found.values() for one in findings]
    order = tuple(Severity)
    everything.sort(key=lambda one: -order.index(one.severity))
    lines = []
    for one in everything:
        lines.append(f"{one.severity.upper():8} {one.check}: {' '.join(one.message.split())}")
        lines.append(f"         run: {one.command}")
        if one.hint and one.hint != one.command:
            lines.append(f"         hint: {one.hint}")
    lines += [f"ok       {name}: {CHECKS[name][0]}" for name, some in found.items() if not some]
    return "".join(f"{line}\n" for line in lines)
