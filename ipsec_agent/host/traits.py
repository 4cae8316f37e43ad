"""What /proc and /sys say of this machine: its CPU, FIPS mode, mounts, and other IKE programs."""

import contextlib
import os
import re
from collections.abc import Iterator
from ipaddress import ip_address
from pathlib import Path

from ipsec_agent.core.doctor.facts import Cpu, Mount

PROC = Path("/proc")
LARGEST = 1 << 20
IKE_PROGRAMS = frozenset({
    "charon", "charon-systemd", "iked", "isakmpd", "pluto", "racoon", "starter"
})  # fmt: skip
SERVER = re.compile(r"(?:^|,)addr=([0-9A-Fa-f.:]+)")
BY_SOURCE = frozenset({"ceph", "fuse.glusterfs"})
MONITORS = re.compile(r"(?:^|,)mon_addr=([^,]+)")
WITH_PORT = re.compile(r"\[?([0-9A-Fa-f.:]+?)\]?(?::\d+)?")


def cpu(proc: Path = PROC) -> Cpu:
    """The CPU, and the algorithms that the kernel has loaded."""
    flags = re.search(r"^(?:flags|Features)\s*:(.*)$", _text(proc / "cpuinfo"), re.MULTILINE)
    drivers = re.findall(r"^driver\s*: (.+)$", _text(proc / "crypto"), re.MULTILINE)
    return Cpu(os.uname().machine, frozenset(flags[1].split() if flags else ()), frozenset(drivers))


def fips(proc: Path = PROC) -> bool:
    """Whether the kernel is in FIPS mode."""
    return _text(proc / "sys/crypto/fips_enabled").strip() == "1"


def mounts(proc: Path = PROC) -> tuple[Mount, ...]:
    """File systems that name another machine's address, once for each address.

    In the option addr (nfs(5), mount.cifs(8)); ceph in its source or in mon_addr, with ports
    (mount.ceph(8)), glusterfs in its source.
    """
    return tuple(_mounts(_text(proc / "self/mounts")))


def _mounts(text: str) -> Iterator[Mount]:
    for line in text.splitlines():
        words = line.split()
        if len(words) > len("dev"):
            source, target, kind, options, *_ = words
            for name in _servers(source, kind, options):
                with contextlib.suppress(ValueError):
                    yield Mount(target, kind, ip_address(name))


def _servers(source: str, kind: str, options: str) -> Iterator[str]:
    """What may be the addresses of its servers."""
    if found := SERVER.search(options):
        yield found[1]
    elif kind in BY_SOURCE:
        monitors = MONITORS.search(options)
        names = monitors[1].replace("/", ",") if monitors else source.partition(":/")[0]
        for one in names.split(","):
            if with_port := WITH_PORT.fullmatch(one):
                yield with_port[1]


def ike_programs(own: int = 0, proc: Path = PROC) -> tuple[tuple[str, int], ...]:
    """Name and pid of each IKE program in this network namespace, but for the agent's own charon.

    Args:
        own: its pid, 0 where none runs.
    """
    here = _namespace(proc / "self")
    found = []
    for place in proc.iterdir():
        if place.name.isdecimal():
            name = _text(place / "comm").strip()
            pid = int(place.name)
            if name in IKE_PROGRAMS and pid != own and _namespace(place) == here:
                found.append((name, pid))
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
