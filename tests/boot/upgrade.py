"""What happens to a VM with the package when its Debian is upgraded to the next release.

It is driven from outside of the container, in which Python, systemd and all else are replaced.
"""

import contextlib
import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.boot.container import Booted, booted
from tests.boot.driver import AGENT, CHARON, TARGET
from tests.boot.package_driver import GUARD, STRONGSWAN, open_sandboxes
from tests.boot.place import CONFIG, VM
from tests.data_files import ROOT
from tests.debootstrap import debootstrapped

CACHE = ROOT / ".cache/debian12"
ARCHIVES = CACHE / "archives"
"""Debian's packages that were fetched before."""

OLD, NEW = "bookworm", "trixie"
FETCHED_WITHIN, UPGRADED_WITHIN = 600.0, 900.0

LINKS = f"""\
ip link set lo up
ip link add eth0 type veth peer name far0
ip link set far0 mtu 1400 up
ip address add {VM}/24 dev eth0
ip link set eth0 up
"""
"""The VM's link; what it leads to is beside it, with packets that fit."""

APT = """\
Acquire::Languages "none";
APT::Keep-Downloaded-Packages "true";
"""

DPKG = """\
force-confdef
force-confold
# The root is thrown away, so that a power failure may harm it.
force-unsafe-io
"""


def make_root(root: Path) -> None:
    """A VM with the old Debian, and a package of this project beside it."""
    debootstrapped(CACHE / "root", OLD, ["systemd-sysv"])
    ARCHIVES.mkdir(exist_ok=True)
    subprocess.run(["cp", "-a", str(CACHE / "root"), str(root)], check=True, timeout=120)
    (root / "etc/apt/apt.conf.d/lab").write_text(APT)
    (root / "etc/dpkg/dpkg.cfg.d/lab").write_text(DPKG)
    shutil.copy("/etc/resolv.conf", root / "etc/resolv.conf")
    subprocess.run(
        ["cp", "-a", f"{ARCHIVES}/.", str(root / "var/cache/apt/archives")], check=True, timeout=60
    )
    # Of its own accord it installs nothing.
    for name in ("timers.target", "getty.target"):
        (root / "etc/systemd/system" / name).symlink_to("/dev/null")
    open_sandboxes(root)


class Vm:
    """The VM while it runs."""

    def __init__(self, machine: Booted, root: Path) -> None:
        self._machine = machine
        self._root = root
        self.run = machine.run

    def apt(self, *words: str) -> str:
        """What apt-get says, which fetches with this machine's network and does the rest without.

        Raises:
            AssertionError: it failed.
        """
        apt = ("apt-get", "--yes")
        self.run(*apt, "--download-only", *words, deadline=FETCHED_WITHIN, outside=True)
        said = self.run(*apt, *words, deadline=UPGRADED_WITHIN).stdout
        for path in (self._root / "var/cache/apt/archives").glob("*.deb"):
            if not (ARCHIVES / path.name).exists():
                shutil.copy(path, ARCHIVES)
        return said

    def update(self, release: str) -> None:
        """Have apt know a release's packages."""
        sources = self._root / "etc/apt/sources.list"
        sources.write_text(sources.read_text().replace(OLD, release))
        self.run("apt-get", "update", deadline=FETCHED_WITHIN, outside=True)

    def settled(self) -> None:
        """Wait until the agent enforces."""
        self.run("ipsec-agent", "status", "--wait", "running", "--timeout", "60", deadline=90)

    def shown(self, unit: str, name: str) -> str:
        """A property of a unit."""
        words = ("systemctl", "show", "--value", f"--property={name}", unit)
        return self.run(*words).stdout.strip()

    def seen(self) -> dict[str, Any]:
        """What there is of IPsec."""
        pids = {unit: self.shown(unit, "MainPID") for unit in (AGENT, CHARON)}
        told = self.run("ipsec-agent", "status", "--json", check=False).stdout
        examined = self.run("ipsec-agent", "doctor", "--json", check=False).stdout
        events = self.run("ipsec-agent", "status", "--events", check=False).stdout
        return {
            "release": (self._root / "etc/debian_version").read_text(),
            "python": self.run("python3", "--version").stdout.strip(),
            "broken": self.run("dpkg", "--audit").stdout + self.run("apt-get", "check").stdout,
            "pids": pids,
            "programs": {
                unit: self.run("readlink", f"/proc/{pid}/exe", check=False).stdout.strip()
                for unit, pid in pids.items()
            },
            "active": {unit: self.shown(unit, "ActiveState") for unit in (TARGET, GUARD)},
            "enabled": {
                unit: self.run("systemctl", "is-enabled", unit, check=False).stdout.strip()
                for unit in (TARGET, GUARD, STRONGSWAN)
            },
            "failed": self.run("systemctl", "--failed", "--no-legend", "--plain").stdout,
            "status": json.loads(told),
            "doctor": {one["name"]: one for one in json.loads(examined)["checks"]},
            "events": events,
            "policies": self.run("ip", "xfrm", "policy").stdout,
            "guard": self.run("nft", "list", "table", "inet", "ipsec_agent").stdout,
            "config": (self._root / CONFIG.relative_to("/")).read_text(),
            "journal": self.run("journalctl", "--unit", AGENT, "--boot", "--no-pager").stdout,
        }

    @contextlib.contextmanager
    def watched(self, found: dict[str, Any]) -> Iterator[None]:
        """Note what a witness sees of the guard meanwhile, with another Python and without nft."""
        words = ("nsenter", "--target", str(self._machine.pid), "--net", sys.executable)
        with subprocess.Popen(
            [*words, "-m", "tests.boot.guard_witness"], stdout=subprocess.PIPE, cwd=ROOT, text=True
        ) as witness:
            try:
                yield
            finally:
                witness.send_signal(signal.SIGTERM)
                said, _ = witness.communicate(timeout=30)
        found["witness"] = json.loads(said)


def live(root: Path, results: Path, package: Path, config: str) -> dict[str, dict[str, Any]]:
    """The life: what each phase found.

    Args:
        root: where its root shall be.
        results: an empty directory, for what boot and systemd say.

    Raises:
        AssertionError: something failed that everything else depends on.
    """
    make_root(root)
    shutil.copy(package, root / "root")
    phases: dict[str, dict[str, Any]] = {}
    with booted(root, results, LINKS) as machine:
        vm = Vm(machine, root)
        vm.update(OLD)
        vm.apt("install", "--no-install-recommends", f"/root/{package.name}")
        path = root / CONFIG.relative_to("/")
        path.parent.mkdir(mode=0o700, exist_ok=True)
        path.write_text(config)
        path.chmod(0o600)
        # Its stop is a `flush ruleset`, and an upgrade of nftables stops it.
        vm.run("systemctl", "enable", "--now", "nftables.service")
        vm.run("systemctl", "start", TARGET)
        vm.settled()
        phases["before"] = vm.seen()
        vm.update(NEW)
        found: dict[str, Any] = {}
        with vm.watched(found):
            (results / "upgrade.log").write_text(vm.apt("full-upgrade"))
            vm.settled()
            phases["upgraded"] = {**vm.seen(), **found}
            vm.apt("autoremove")
            reload = vm.run("ipsec-agent", "reload", check=False)
            phases["old Python gone"] = {**vm.seen(), "code": reload.returncode}
            vm.run("systemctl", "restart", CHARON)
            vm.settled()
            phases["another charon"] = vm.seen()
        phases["upgraded"] |= found
    with booted(root, results, LINKS) as machine:
        vm = Vm(machine, root)
        vm.settled()
        phases["rebooted"] = vm.seen()
    return phases
