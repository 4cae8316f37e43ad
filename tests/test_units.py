"""The units and the other files of systemd/ and monit/, judged by systemd's own tools."""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.data_files import ROOT, installed

UNITS = sorted(ROOT.glob("systemd/*.service")) + sorted(ROOT.glob("systemd/*.target"))
EXPOSURE = {
    "ipsec-agent": 3.0,
    "ipsec-agent-charon": 3.5,
    "ipsec-agent-drain": 3.0,
    "ipsec-agent-guard": 3.5,
}
"""How exposed each may be: what charon and nft were measured to need, and no more."""

pytestmark = pytest.mark.skipif(
    shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed"
)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A root directory in which the agent is installed, and little else."""
    for place, source in installed().items():
        target = tmp_path / place
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, target)
    for program in ("bin/sh", "bin/kill", "sbin/nft", "bin/ipsec-agent"):
        target = tmp_path / "usr" / program
        target.parent.mkdir(exist_ok=True)
        target.write_text("#!/bin/false\n")
        target.chmod(0o755)
    (tmp_path / "bin").symlink_to("usr/bin")
    (tmp_path / "sbin").symlink_to("usr/sbin")
    for name in ("sysinit", "basic", "multi-user", "network", "network-pre", "shutdown"):
        unit = tmp_path / "usr/lib/systemd/system" / f"{name}.target"
        unit.write_text(f"[Unit]\nDescription={name}\n")
    nftables = tmp_path / "usr/lib/systemd/system/nftables.service"
    nftables.write_text("[Service]\nType=oneshot\nExecStart=nft -f x\nExecStop=nft flush ruleset\n")
    return tmp_path


def analyze(*arguments: str) -> subprocess.CompletedProcess[str]:
    """What systemd-analyze says."""
    return subprocess.run(
        ["systemd-analyze", "--no-pager", *arguments],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def test_every_file_is_installed() -> None:
    """setup.cfg lists each file of systemd/ and monit/ once."""
    places = (ROOT / "systemd", ROOT / "monit")
    there = [path for place in places for path in place.rglob("*") if path.is_file()]
    listed = [
        path
        for path in installed().values()
        if path.is_relative_to(places[0]) or path.is_relative_to(places[1])
    ]

    assert sorted(listed) == sorted(there)


def test_verify(root: Path) -> None:
    """systemd finds no unknown word, no missing program and no cycle in the installed units."""
    done = analyze("verify", f"--root={root}", "nftables.service", *(it.name for it in UNITS))

    assert done.stdout + done.stderr == ""
    assert done.returncode == 0


@pytest.mark.parametrize("unit", ["ipsec-agent", "ipsec-agent-charon"])
def test_a_crash_is_followed_by_a_start(unit: str) -> None:
    """By whatever way it ends, by a signal or the watchdog; tests/boot shows the latter for real.

    Of systemd.service(5)'s table these two words hold both.
    """
    text = (ROOT / "systemd" / f"{unit}.service").read_text()

    assert re.findall(r"^Restart=(.*)", text, re.MULTILINE)[-1:] in (["on-failure"], ["always"])


@pytest.mark.parametrize("unit", sorted(EXPOSURE))
def test_exposure(unit: str) -> None:
    """`systemd-analyze security` is content with each service."""
    done = analyze("security", "--offline=true", str(ROOT / "systemd" / f"{unit}.service"))

    found = re.search(r"Overall exposure level for \S+: ([\d.]+)", done.stdout)
    assert found is not None, done.stdout + done.stderr
    assert float(found[1]) <= EXPOSURE[unit]


def test_enable(root: Path) -> None:
    """Enabling the target enables the guard, which the boot wants even before the target."""
    subprocess.run(
        ["systemctl", f"--root={root}", "enable", "ipsec-agent.target"],
        check=True,
        capture_output=True,
        timeout=60,
    )

    wants = root / "etc/systemd/system"
    assert (wants / "multi-user.target.wants/ipsec-agent.target").is_symlink()
    assert (wants / "sysinit.target.wants/ipsec-agent-guard.service").is_symlink()


def test_preset(root: Path) -> None:
    """An image that applies presets gets the agent, and no second charon."""
    strongswan = root / "usr/lib/systemd/system/strongswan.service"
    strongswan.write_text("[Service]\nExecStart=nft\n[Install]\nWantedBy=multi-user.target\n")
    subprocess.run(
        ["systemctl", f"--root={root}", "preset-all"], check=True, capture_output=True, timeout=60
    )

    wants = root / "etc/systemd/system"
    assert (wants / "multi-user.target.wants/ipsec-agent.target").is_symlink()
    assert (wants / "sysinit.target.wants/ipsec-agent-guard.service").is_symlink()
    assert not (wants / "multi-user.target.wants/strongswan.service").exists()


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give directories to root")
def test_directories(root: Path) -> None:
    """Nobody but root sees where the config's private key will be."""
    (root / "etc").mkdir()
    (root / "etc/passwd").write_text("root:x:0:0::/root:/bin/sh\n")
    (root / "etc/group").write_text("root:x:0:\n")
    subprocess.run(
        ["systemd-tmpfiles", f"--root={root}", "--create", "ipsec-agent.conf"],
        check=True,
        timeout=60,
    )

    for name in ("etc/ipsec-agent", "var/lib/ipsec-agent"):
        assert (root / name).stat().st_mode & 0o777 == 0o700


def test_the_proof_may_send_and_capture() -> None:
    """The agent proves peers itself: raw sockets and a capture, as `verify` has them of root."""
    text = (ROOT / "systemd/ipsec-agent.service").read_text()
    (families,) = re.findall(r"^RestrictAddressFamilies=(.*)$", text, re.MULTILINE)
    (capabilities,) = re.findall(r"^CapabilityBoundingSet=(.*)$", text, re.MULTILINE)

    assert {"AF_INET", "AF_INET6", "AF_PACKET"} <= set(families.split())
    assert {"CAP_NET_RAW", "CAP_NET_ADMIN"} <= set(capabilities.split())
