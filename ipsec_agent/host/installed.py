"""What is installed on this machine beside the agent: Debian's packages, and systemd's units."""

import re
import subprocess
from pathlib import Path

from ipsec_agent.core.doctor.facts import Unit
from ipsec_agent.host.program import find_program

DEADLINE = 10.0
RELEASE = Path("/etc/debian_version")
RUNS_SYSTEMD = Path("/run/systemd/system")
"""Where it is, systemd is what started this machine (sd_booted(3))."""


def _output(program: str, *words: str) -> str:
    """What a program says; "" where it is not there or takes too long."""
    path = find_program(program)
    if path is None:
        return ""
    try:
        done = subprocess.run(  # noqa: S603 - no shell, and our own words
            [path, *words],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=DEADLINE,
            check=False,
            env={"LC_ALL": "C", "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"},
        )
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.decode(errors="replace")


def packages(*names: str) -> dict[str, str]:
    """The versions of those of these packages that are installed; empty where dpkg is not."""
    form = "-f=${db:Status-Abbrev} ${Package} ${Version}\n"
    lines = _output("dpkg-query", "-W", form, *names).splitlines()
    rows = [line.split() for line in lines]
    return {row[1]: row[2] for row in rows if len(row) == len(form.split()) and row[0] == "ii"}


def debian_release(path: Path = RELEASE) -> int:
    """The number of Debian's release, 0 on another system."""
    try:
        found = re.match(r"(\d+)(\.|$)", path.read_text(errors="replace"))
    except OSError:
        return 0
    return int(found[1]) if found else 0


def units(*names: str, booted: Path = RUNS_SYSTEMD) -> tuple[Unit, ...] | None:
    """Those of these units that are installed; None where systemd did not start this machine."""
    if not booted.exists():
        return None
    said = _output("systemctl", "show", "--property=Id,LoadState,UnitFileState,ActiveState", *names)
    found = []
    for block in said.split("\n\n"):
        told = dict(line.partition("=")[::2] for line in block.splitlines())
        if told.get("LoadState") == "loaded":
            enabled = told.get("UnitFileState", "").startswith(("enabled", "static", "alias"))
            found.append(Unit(told["Id"], enabled, told.get("ActiveState") == "active"))
    # Two of the names may be one unit's: ipsec.service is an alias of strongswan-starter.service.
    return tuple(dict.fromkeys(found))


RULE_STOPS = re.compile(
    r"(protocol (esp|50)\b|l4proto (esp|50)\b|nexthdr (esp|50)\b|-p (esp|50)\b"
    r"|dport (\{[^}]*\b)?(500|4500|isakmp|ipsec-nat-t)\b)"
)
RULE_DOES = re.compile(r"\b(drop|reject|redirect|dnat|DROP|REJECT|REDIRECT|DNAT)\b")
OURS = re.compile(r"^table \w+ ipsec_agent\b")


def blocking_rules(ruleset: str | None = None) -> tuple[str, ...]:
    """Rules of others that drop or redirect ESP or IKE; those of iptables-nft are among them.

    Args:
        ruleset: what `nft list ruleset` prints; None to run it.
    """
    text = _output("nft", "list", "ruleset") if ruleset is None else ruleset
    found, ours = [], False
    for line in text.splitlines():
        if line.startswith("table "):
            ours = bool(OURS.match(line))
        elif not ours and RULE_STOPS.search(line) and RULE_DOES.search(line):
            found.append(" ".join(line.split()))
    return tuple(found)
