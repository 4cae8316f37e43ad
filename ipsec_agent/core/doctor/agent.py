"""Checks of the config, the agent, the guard and the units."""

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import ip_address
from shlex import quote
from typing import Any

from ipsec_agent.core.commands import DEFAULT_CONFIG
from ipsec_agent.core.config import GuardMode
from ipsec_agent.core.doctor.facts import Complaint, Facts, Finding
from ipsec_agent.core.model import Role
from ipsec_agent.core.problems.expiry import expiry_problems
from ipsec_agent.core.problems.ike_ports import ike_port_problems
from ipsec_agent.core.problems.kernel import network_problems
from ipsec_agent.core.problems.mtu import mtu_problems
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.problems.switches import switch_problems
from ipsec_agent.core.verify import PEER_VERDICTS
from ipsec_agent.core.words import mentions

QUOTED = re.compile(r"`([^`]+)`( on that VM| there)?")
PROGRAMS = frozenset({
    "apt", "apt-get", "chmod", "chown", "date", "df", "dmesg", "findmnt", "fuser", "getent",
    "grep", "ip", "ipsec-agent", "journalctl", "kill", "ls", "modprobe", "monit", "nft", "openssl",
    "ss", "sudo", "swanctl", "sysctl", "systemctl", "tcpdump", "timedatectl", "umount"
})  # fmt: skip
"""What a command begins with; else it is a line of a config, or of a log."""

LATER = ("ipsec-agent guard down", "ipsec-agent doctor")
"""Never the first thing to type: the one opens the VM, the other has just been typed."""

STATUS = "ipsec-agent status"
CHECK_MACHINE = "ipsec-agent check --machine"
NEXT = {
    "esp-unavailable": CHECK_MACHINE,
    "clear-received": "ipsec-agent guard status",
    "clear-prevented": "ipsec-agent guard status",
    "nat-bypassed": "ipsec-agent guard status",
    "source-not-on-link": "ipsec-agent guard status",
    "lockout-risk": "grep -n -A9 no_ipsec_subnets {config}",
}
"""What to type about a problem whose hint names no command."""
CERTIFICATES = f"ipsec-agent certs show {DEFAULT_CONFIG}"
FIRST = {
    "certificate-expired": CERTIFICATES,
    "certificate-expires": CERTIFICATES,
    "certificate-not-valid-yet": "date -u",
    "guard-counters-full": "ipsec-agent guard status",
}
"""What to type before what the hint of a problem names: that comes last, or is seldom needed."""

OF_THE_TABLE = frozenset({"guard-missing", "guard-altered", "guard-lowered"})
"""Problems for which the guard is not up."""

START = "systemctl start ipsec-agent.target"
MONIT = "monit start ipsec"
BY_HAND = "ipsec-agent run"
RESTART = "systemctl restart ipsec-agent.service"
MONIT_STATUS = "monit status ipsec"
"""monit replaces an agent that does not answer."""
AS_ROOT = "sudo ipsec-agent doctor"
TARGET, GUARD_UNIT = "ipsec-agent.target", "ipsec-agent-guard.service"
BOSH_UNIT = "ipsec-agent-remover.path"
"""Only the BOSH release has it; there monit starts the agent, and the target is not enabled."""


def command_of(hint: str, otherwise: str = STATUS) -> str:
    """The first command that a hint names for this VM."""
    named = (found[1] for found in QUOTED.finditer(hint) if not found[2])
    commands = (one for one in named if one.split()[:1] and one.split()[0] in PROGRAMS)
    return next((one for one in commands if not one.startswith(LATER)), otherwise)


def config(facts: Facts) -> Iterator[Finding]:
    """It is there, and valid."""
    check = f"{'' if facts.root else 'sudo '}ipsec-agent check {facts.path}"
    if facts.passed_over:
        yield Finding(
            "config",
            Severity.WARNING,
            f"the running agent's config is {facts.path}, so {facts.passed_over} was not looked at",
            f"ipsec-agent check {facts.passed_over} --machine",
        )
    if facts.refused is not None:
        lines = "".join(f"; {line}" for line in facts.refused.lines[:3])
        yield Finding(
            "config", Severity.ERROR, f"{facts.refused.message}{lines}", check, facts.refused.hint
        )
    for warning in facts.warnings:
        yield Finding("config", Severity.INFO, warning, check)


def agent(facts: Facts) -> Iterator[Finding]:
    """It runs; where it does not, whether something else keeps this VM closed."""
    if facts.status is not None:
        if "connections" not in facts.status:
            yield Finding(
                "agent", Severity.WARNING, "the agent has only just started", f"{STATUS} --watch"
            )
        return
    if facts.silent is not None:
        yield _silent(facts, facts.silent)
        return
    start = _by_supervisor(facts, START, MONIT, BY_HAND)
    if _in_clear(facts):
        no_guard = without_guard(facts)
        yield Finding(
            "agent",
            Severity.CRITICAL,
            "no agent runs and no guard is loaded: packets to other VMs leave in clear",
            start if no_guard else _guard_up(facts),
            "" if no_guard else f"then start the agent: `{start}`",
        )
    else:
        yield Finding(
            "agent",
            Severity.ERROR,
            "no agent runs: nothing is repaired or reported, and new SAs need charon",
            start,
        )


def _silent(facts: Facts, because: Complaint) -> Finding:
    if not facts.root:
        message = f"the agent was not asked: {because.message}"
        return Finding("agent", Severity.INFO, message, AS_ROOT)
    return Finding(
        "agent",
        Severity.ERROR,
        f"the agent cannot be asked: {because.message}",
        _by_supervisor(
            facts, RESTART, MONIT_STATUS, f"ps -fp $(cat {quote(facts.agent.run_dir)}/agent.pid)"
        ),
        f"{because.hint}; charon, policies and guard stay while it is replaced",
    )


def _by_supervisor(facts: Facts, systemd: str, monit: str, nobody: str) -> str:
    """What to type, by what starts the agent on this VM."""
    if of_bosh(facts):
        return monit
    if any(unit.name == TARGET for unit in facts.units or ()):
        return systemd
    return monit if facts.monit else nobody


def of_bosh(facts: Facts) -> bool:
    """Whether it is a VM of the BOSH release."""
    return any(unit.name == BOSH_UNIT for unit in facts.units or ())


def without_guard(facts: Facts) -> bool:
    """Whether the config says so: `guard up` refuses then."""
    return facts.config is not None and facts.config.agent.guard is GuardMode.NONE


def _in_clear(facts: Facts) -> bool:
    encrypts = facts.wish is None or facts.wish.role is Role.ENCRYPT
    return encrypts and facts.guard is not None and facts.guard.state == "missing"


def problems(facts: Facts) -> Iterator[Finding]:
    """What the running agent reports."""
    status = facts.status or {}
    for one in status.get("problems", ()):
        yield Finding(
            one["code"],
            _severity(one["severity"]),
            one["message"],
            FIRST.get(one["code"])
            or command_of(one["hint"], _next(one, status.get("peers", ()), facts.path)),
            one["hint"],
        )


def _next(problem: Mapping[str, Any], peers: Iterable[Mapping[str, Any]], path: str) -> str:
    """What to type about a problem whose hint names no command: what says more of it."""
    code = problem["code"]
    failing = (one["address"] for one in peers if one.get("problem") == code)
    peer = next((one for one in failing if mentions(problem["message"], one)), None)
    if peer is None and code in PEER_VERDICTS:
        # Who has begun lists the peer; who has refused may not.
        peer = _address(problem["message"].partition(" ")[0])
    known = NEXT.get(code, STATUS).format(config=quote(path))
    return f"ipsec-agent verify {peer}" if peer else known


def _address(word: str) -> str | None:
    try:
        return str(ip_address(word))
    except ValueError:
        return None


def _severity(told: str) -> Severity:
    """One that a later version has is loud."""
    return Severity(told) if told in set(Severity) else Severity.ERROR


def by_oneself(facts: Facts) -> Iterator[Finding]:
    """What an agent would report of this VM before it has done anything; where none runs."""
    if facts.status is not None or facts.config is None:
        return
    for one in _without_agent(facts):
        command = FIRST.get(one.code) or command_of(one.hint, CHECK_MACHINE)
        yield Finding(one.code, one.severity, one.message, command, one.hint)


def _without_agent(facts: Facts) -> Iterator[Problem]:
    observed, placement, wish = facts.observed, facts.placement, facts.wish
    if facts.config is None:
        return
    yield from expiry_problems(facts.config, observed)
    yield from network_problems(placement, facts.network)
    if wish is not None:
        yield from switch_problems(placement, wish, observed)
        yield from ike_port_problems(wish, observed)
        yield from mtu_problems(facts.config, placement, wish, observed)


def guard(facts: Facts) -> Iterator[Finding]:
    """It is up, as it was loaded, and loads at the next boot."""
    found = facts.guard
    if found is None or without_guard(facts):
        return
    loud = Severity.CRITICAL if found.state == "altered" else Severity.WARNING
    said = (facts.status or {}).get("guard", {}).get("state")
    # What the agent reports of the table, or the check of the agent, is a finding of both.
    same = tuple(one for one in problems(facts) if one.check in OF_THE_TABLE)
    if said is None and facts.silent is None and _in_clear(facts):
        same = tuple(agent(facts))
    yield from same
    for note in found.notes:
        told = same or (said is not None and (said != "up" or found.state == "missing"))
        if told and "saved" not in note and "boot" not in note:
            continue
        harmless = note.startswith(("IPsec is optional", "where "))
        command = command_of(note, _guard_up(facts))
        yield Finding("guard", Severity.INFO if harmless else loud, note, command)


def _guard_up(facts: Facts) -> str:
    """Without a config that is accepted there is no other guard than the closed one."""
    return f"ipsec-agent guard up{'' if facts.config else ' --closed'}"


def boot(facts: Facts) -> Iterator[Finding]:
    """systemd starts both the guard and the agent at the next boot; with BOSH, monit the latter."""
    units = {unit.name: unit for unit in facts.units or ()}
    ours = (GUARD_UNIT,) if of_bosh(facts) else (TARGET, GUARD_UNIT)
    for name, lacks in (
        (TARGET, "after the next boot no agent runs"),
        (GUARD_UNIT, "until the agent starts, the next boot has no guard: packets leave in clear"),
    ):
        unit = units.get(name)
        if name in ours and unit is not None and not unit.enabled:
            yield Finding(
                "boot",
                Severity.WARNING,
                f"{name} is not enabled: {lacks}",
                f"systemctl enable {' '.join(ours)}",
            )


def machine(facts: Facts) -> Iterator[Finding]:
    """This VM can do what the config asks for."""
    if not facts.root:
        yield Finding(
            "machine",
            Severity.INFO,
            "not checked without root: ESP, nftables, the guard's table, lock-outs",
            AS_ROOT,
        )
    told = {one.message: one for one in problems(facts)}
    for one in facts.machine:
        # What the agent reports is the same finding, and is shown once.
        yield told.get(one.message) or Finding(
            "machine",
            Severity.ERROR,
            one.message,
            command_of(one.hint, CHECK_MACHINE),
            one.hint,
        )
