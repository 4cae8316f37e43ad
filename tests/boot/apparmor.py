"""Debian's AppArmor profiles of charon, compiled on the machine: the guest is too slow for that."""

import shutil
import subprocess
from pathlib import Path

from tests.data_files import ROOT

PROFILES = ("usr.lib.ipsec.charon", "usr.sbin.charon-systemd")
TREE = ROOT / ".cache" / "guest" / "apparmor"
"""The package apparmor, unpacked, never installed."""

PARSER = TREE / "sbin" / "apparmor_parser"


def fetch() -> None:
    """Unpack the package, once.

    Raises:
        subprocess.CalledProcessError: it cannot be had.
    """
    if PARSER.exists():
        return
    place = TREE.with_suffix(".partial")
    shutil.rmtree(place, ignore_errors=True)
    place.mkdir(parents=True)
    subprocess.run(
        ["apt-get", "-o", "APT::Sandbox::User=root", "download", "-qq", "apparmor"],
        check=True,
        cwd=place,
        timeout=120,
    )
    package = next(place.glob("apparmor_*.deb"))
    subprocess.run(["dpkg", "-x", package, place], check=True, timeout=60)
    package.unlink()
    (place / "empty.conf").touch()
    place.rename(TREE)


def compile_profiles(target: Path) -> None:
    """Write both profiles as the kernel takes them, with what the README says to add."""
    fetch()
    rules = target / "rules"
    shutil.copytree(TREE / "etc/apparmor.d", rules)
    features = TREE / "usr/share/apparmor-features/features"
    for name in PROFILES:
        shutil.copy(Path("/etc/apparmor.d", name), rules)
        shutil.copy(Path("/etc/apparmor.d/local", name), rules / "local")
    with (rules / "local" / PROFILES[0]).open("a") as local:
        local.write((ROOT / "systemd/apparmor-charon").read_text())
    for name in PROFILES:
        subprocess.run(
            [
                *(str(PARSER), "--config-file", str(TREE / "empty.conf"), "--base", str(rules)),
                *("--policy-features", str(features), "--kernel-features", str(features)),
                *("--skip-kernel-load", "-o", str(target / f"{name}.bin"), str(rules / name)),
            ],
            check=True,
            timeout=60,
        )


def load_profiles(source: Path) -> None:
    """Give the guest's kernel the compiled profiles."""
    security = "/sys/kernel/security"
    subprocess.run(["mount", "-t", "securityfs", "none", security], check=True, timeout=20)
    for name in PROFILES:
        subprocess.run(
            [
                *(str(PARSER), "--config-file", str(TREE / "empty.conf")),
                *("--binary", "--replace", str(source / f"{name}.bin")),
            ],
            check=True,
            timeout=20,
        )
