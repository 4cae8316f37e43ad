"""What /proc and /sys say of this machine: its CPU, FIPS mode, mounts, and other IKE programs."""

import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from ipsec_agent.core.doctor.facts import Cpu, Mount

PROC = Path("/proc")
LARGEST = 1 << 20
IKE_PROGRAMS = frozenset({"pluto", "racoon", "iked", "starter", "isakmpd"})
SERVER = re.compile(r"(?:^|,)addr=([0-9A-Fa-f.:]+)")


def cpu(proc: Path = PROC) -> Cpu:
    """The CPU, and the algorithms that the kernel has loaded."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _text(proc / "cpuinfo"), re.MULTILINE)
    drivers = re.findall(r"^driver\s*: (.+)$", _text(proc / "crypto"), re.MULTILINE)
    return Cpu(os.uname().machine, frozenset(flags[1].split() if flags else ()), frozenset(drivers))


def fips(proc: Path = PROC) -> bool:
    """Whether the kernel is in FIPS mode."""
    return _text(proc / "sys/crypto/fips_enabled").strip() == "1"


def mounts(proc: Path = PROC) -> tuple[Mount, ...]:
    """File systems whose options name another machine's address (nfs(5), mount.cifs(8))."""
    return tuple(_mounts(_text(proc / "self/mounts")))


def _mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        words = line.split()
        found = SERVER.search(words[3]) if len(words) > len("dev") else None
        if found:
            try:
                server = ip_address(found[1])
            except ValueError:
                continue
            yield Mount(words[1], words[2], server)


def ike_programs(proc: Path = PROC) -> tuple[tuple[str, int], ...]:
    """Name and pid of each IKE program in this network namespace, but for strongSwan's charon."""
    here = _namespace(proc / "self")
    found = []
    for place in proc.iterdir():
        if place.name.isdecimal():
            name = _text(place / "comm").strip()
            if name in IKE_PROGRAMS and _namespace(place) == here:
                found.append((name, int(place.name)))
    return tuple(sorted(found))


def replaced(pid_file: Path, proc: Path = PROC) -> int:
    """The pid of the charon that runs, if a file that it runs was replaced since; else 0.

    A package that is upgraded puts new files into the place of those that are in use, and the
    kernel then says that these are deleted (proc(5)).

    Args:
        pid_file: of charon.
    """
    pid = _text(pid_file).strip()
    if not pid.isdecimal():
        return 0
    maps = _text(proc / pid / "maps")
    return int(pid) if re.search(r"/(charon|ipsec/)\S* \(deleted\)$", maps, re.MULTILINE) else 0


def _namespace(process: Path) -> str:
    try:
        return str((process / "ns/net").readlink())
    except OSError:
        return ""


def _text(path: Path) -> str:
    try:
        with path.open(errors="replace") as file:
            return file.read(LARGEST)
    except OSError:
        return ""
