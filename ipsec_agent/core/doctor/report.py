"""All checks of `doctor`, and the document that they make: a stable interface with a `schema`."""

from collections.abc import Callable, Iterable, Iterator
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.commands import About
from ipsec_agent.core.doctor import agent, machine
from ipsec_agent.core.doctor.facts import Facts, Finding
from ipsec_agent.core.doctor.holes import PACKAGES, restarted, strongswan
from ipsec_agent.core.doctor.outages import outages
from ipsec_agent.core.problems.problem import ADVICE, Severity

SCHEMA = 1

Check = Callable[[Facts], Iterator[Finding]]

CHECKS: dict[str, tuple[str, tuple[Check, ...]]] = {
    "config": ("the config is there and valid", (agent.config,)),
    "agent": ("an agent runs", (agent.agent,)),
    "problems": ("no problem is known", (agent.problems, agent.by_oneself)),
    "outages": ("no peer was cut off", (outages,)),
    "guard": ("the guard is up, and saved for the next boot", (agent.guard,)),
    "boot": ("guard and agent start at boot", (agent.boot,)),
    "machine": ("this VM can do what the config asks for", (agent.machine,)),
    "other-ipsec": ("no other IPsec program runs", (machine.others,)),
    "firewall": ("no other rule stops ESP or IKE", (machine.firewall,)),
    "cpu": ("the CPU has AES in hardware, and it is used", (machine.cpu,)),
    "stop": ("nothing hangs when IPsec stops", (machine.stop,)),
    "plugins": ("charon loads no foreign plugin", (machine.plugins,)),
    "fips": ("the proposals are allowed in FIPS mode", (machine.fips,)),
    "strongswan": ("strongSwan has no known hole", (restarted, strongswan)),
    "unread": ("everything could be read", (machine.tools,)),
}
"""Name, what it says where all is well, and the functions."""

BY_CONFIG = frozenset({"machine", "cpu", "stop", "plugins", "fips"})
"""Checks that judge by the config: without a valid one they say nothing."""

BY_STATUS = frozenset({"problems", "outages"})
"""Checks of what an agent knows."""

AS_ROOT = frozenset({"machine", "firewall", "guard"})
"""Checks that only root can make."""


class Result(Struct, frozen=True):
    """What a check has found, the loudest first.

    Attributes:
        because: why it was not made.
        see: names of the checks that carry what this one has found, too.
    """

    name: str
    findings: tuple[Finding, ...]
    because: str = ""
    see: tuple[str, ...] = ()

    @property
    def state(self) -> str:
        """`ok`, `found`, or `not checked`."""
        if self.findings or self.see:
            return "found"
        return "not checked" if self.because else "ok"


def examined(facts: Facts) -> tuple[Result, ...]:
    """What each check finds; a finding of several is carried by the first of them."""
    carried: dict[Finding, str] = {}
    results = []
    for name, (_, checks) in CHECKS.items():
        found = _loudest_first(dict.fromkeys(one for check in checks for one in check(facts)))
        by = {one: carried.setdefault(one, name) for one in found}
        own = tuple(one for one in found if by[one] == name)
        see = tuple(other for other in dict.fromkeys(by.values()) if other != name)
        results.append(Result(name, own, _unmade(name, facts), see))
    return tuple(results)


def repeated(results: Iterable[Result], about: About) -> tuple[Result, ...]:
    """The same, with commands that work for the agent that they are about."""
    return tuple(
        replace(one, findings=tuple(_repeated(finding, about) for finding in one.findings))
        for one in results
    )


def _repeated(one: Finding, about: About) -> Finding:
    return replace(
        one,
        message=about.text(one.message),
        command=about.command(one.command),
        hint=about.text(one.hint),
    )


def _unmade(name: str, facts: Facts) -> str:
    known = any(package in facts.packages for package in PACKAGES)
    by_config = name in BY_CONFIG or (name == "problems" and facts.status is None)
    reasons = {
        "the agent cannot be asked": name in BY_STATUS and facts.silent is not None,
        "there is no valid config": by_config and facts.config is None,
        "systemd did not start this machine": name == "boot" and facts.units is None,
        "dpkg knows no strongSwan here": name == "strongswan" and not known,
        "this needs root": name in AS_ROOT and not facts.root,
        "the config says agent.guard: none": name == "guard" and agent.without_guard(facts),
        "it could not be read": name == "guard" and facts.guard is None,
    }
    return next((because for because, so in reasons.items() if so), "")


def _loudest_first(findings: Iterable[Finding]) -> list[Finding]:
    order = tuple(Severity)
    return sorted(findings, key=lambda one: -order.index(one.severity))


def loud(findings: Iterable[Finding]) -> bool:
    """Whether one is more than something to know."""
    return any(
        finding.severity is not Severity.INFO and finding.check not in ADVICE
        for finding in findings
    )


def document(results: Iterable[Result]) -> dict[str, Any]:
    """What `doctor --json` prints."""
    found = tuple(results)
    return {
        "schema": SCHEMA,
        "well": not any(loud(one.findings) for one in found),
        "checks": [
            {
                "name": one.name,
                "state": one.state,
                "findings": [_finding(finding) for finding in one.findings],
                "see": list(one.see),
            }
            for one in found
        ],
    }


def _finding(one: Finding) -> dict[str, str]:
    return {
        "code": one.check,
        "severity": one.severity.value,
        "message": one.message,
        "command": one.command,
        "hint": one.hint,
    }


def text(results: Iterable[Result]) -> str:
    """The same for a person: what is wrong first, then what is well in one line each."""
    found = tuple(results)
    lines = []
    for one in _loudest_first(finding for result in found for finding in result.findings):
        lines.append(f"{one.severity.upper():8} {one.check}: {' '.join(one.message.split())}")
        lines.append(f"         run: {one.command}")
        if one.hint and one.hint != f"`{one.command}`":
            lines.append(f"         hint: {one.hint}")
    for result in found:
        if result.state == "ok":
            lines.append(f"ok       {result.name}: {CHECKS[result.name][0]}")
        elif result.state != "found":
            lines.append(f"-        {result.name}: not checked, {result.because}")
    return "".join(f"{line}\n" for line in lines)
