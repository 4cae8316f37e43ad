"""What is done to a machine under systemd, and what `doctor` says each time, as JSON.

Runs as a service of the container (tests/boot/container.py), whose root nobody else sees.
"""

import contextlib
import json
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from tests.boot.place import CONFIG, RESULTS, VM
from tests.data_files import ROOT

UNITS = Path("/etc/systemd/system")
TARGET, GUARD = "ipsec-agent.target", "ipsec-agent-guard.service"
STARTER = "strongswan-starter.service"
OTHERS = ("libreswan.service", "racoon.service", "racoon2.service")
STATUS = Path("/var/lib/dpkg/status")
INSTALLED = r"(^Package: (?:charon-systemd|strongswan-charon)\n.*?^Version: )\S+"
STRONGSWAN = r"^(Package: )(?=(?:charon-systemd|strongswan-charon|libstrongswan)$)"
RELEASE = Path("/etc/debian_version")
CPUINFO, CRYPTO = Path("/proc/cpuinfo"), Path("/proc/crypto")
FIPS = Path("/proc/sys/crypto/fips_enabled")
MOUNTS = """\
10.9.0.9:/x /data nfs4 rw,vers=4.2,addr=10.9.0.9,clientaddr=10.9.0.1 0 0
10.9.0.8:6789:/ /ceph ceph rw,relatime,name=x,secret=<hidden>,acl 0 0
//nas/x /nas cifs rw,addr=192.0.2.9 0 0
"""
"""What the kernel says where these are mounted."""

FLAGS = "flags\t\t: fpu sse2{more}\n"
DRIVER = "name         : gcm(aes)\ndriver       : {name}\n"


def run(*words: str) -> None:
    """Run a program, which must succeed."""
    subprocess.run(words, check=True, capture_output=True, timeout=60)


def doctor() -> dict[str, Any]:
    """What it says of the machine as it is now."""
    return told(sys.executable, "-m", "ipsec_agent", "doctor", "--json")


def as_text() -> dict[str, Any]:
    """The same, and what it says to a person."""
    words = (sys.executable, "-m", "ipsec_agent", "doctor")
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    return doctor() | {"text": done.stdout}


def told(*words: str) -> dict[str, Any]:
    """The document that a program prints."""
    done = subprocess.run(words, check=False, capture_output=True, text=True, timeout=60)
    assert done.stdout, done.stderr
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def give(name: str) -> None:
    """Have one of the configs that the test has written."""
    CONFIG.parent.mkdir(exist_ok=True)
    shutil.copy(RESULTS / name, CONFIG)
    CONFIG.chmod(0o600)


@contextlib.contextmanager
def given(name: str) -> Iterator[None]:
    """Have one of them for a while, and then the good one."""
    give(name)
    try:
        yield
    finally:
        give("good.yml")


@contextlib.contextmanager
def shown(path: Path, text: str) -> Iterator[None]:
    """The kernel says this in a file of /proc meanwhile."""
    file = Path("/run", path.name)
    file.write_text(text)
    run("mount", "--bind", str(file), str(path))
    try:
        yield
    finally:
        run("umount", str(path))


@contextlib.contextmanager
def cpu(flags: str, driver: str) -> Iterator[None]:
    """A CPU with these flags beside others, and a kernel with this driver."""
    with (
        shown(CPUINFO, FLAGS.format(more=flags)),
        shown(CRYPTO, DRIVER.format(name=driver)),
    ):
        yield


@contextlib.contextmanager
def strongswan(version: str, release: str) -> Iterator[None]:
    """A version of strongSwan is installed, by dpkg's own file; a release of Debian, by its."""
    status, own = STATUS.read_text(), RELEASE.read_text()
    package = re.compile(INSTALLED, re.MULTILINE | re.DOTALL)
    STATUS.write_text(package.sub(rf"\g<1>{version}", status))
    RELEASE.write_text(release)
    try:
        yield
    finally:
        STATUS.write_text(status)
        RELEASE.write_text(own)


@contextlib.contextmanager
def unpackaged() -> Iterator[None]:
    """dpkg knows no strongSwan, as where the BOSH release brings it."""
    status = STATUS.read_text()
    STATUS.write_text(re.sub(STRONGSWAN, r"\g<1>no-", status, flags=re.MULTILINE))
    try:
        yield
    finally:
        STATUS.write_text(status)


@contextlib.contextmanager
def fips() -> Iterator[None]:
    """The kernel is in FIPS mode; one that cannot be has no such file."""
    if FIPS.exists():
        with shown(FIPS, "1\n"):
            yield
        return
    place = Path("/run/sys")
    (place / "crypto").mkdir(parents=True)
    (place / "crypto/fips_enabled").write_text("1\n")
    for name in ("net", "kernel"):
        (place / name).mkdir()
        run("mount", "--bind", f"/proc/sys/{name}", str(place / name))
    run("mount", "--rbind", str(place), "/proc/sys")
    try:
        yield
    finally:
        run("umount", "--lazy", "/proc/sys")


def link() -> None:
    """The VM's link, without a peer."""
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    run("ip", "link", "set", "far0", "up")
    run("ip", "address", "add", f"{VM}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")


def bare() -> dict[str, Any]:
    """Installed, without a config; systemd's units are there, and not enabled."""
    for path in (ROOT / "systemd").glob("ipsec-agent*.*"):
        if path.suffix in {".service", ".target"}:
            shutil.copy(path, UNITS)
    run("systemctl", "daemon-reload")
    return as_text()


def refused() -> dict[str, Any]:
    """A config with a tab."""
    CONFIG.parent.mkdir(exist_ok=True)
    CONFIG.write_text("properties:\n\tipsec:\n")
    CONFIG.chmod(0o600)
    return doctor()


def in_clear() -> dict[str, Any]:
    """A good config, the units enabled; nothing is started."""
    give("good.yml")
    run("systemctl", "enable", TARGET, GUARD)
    with cpu(" aes pclmulqdq", "generic-gcm-aesni"):
        return doctor()


def guarded() -> dict[str, Any]:
    """Closed by hand, as docs say; the link and strongSwan's own units are as was said."""
    run(sys.executable, "-m", "ipsec_agent", "guard", "up")
    run("ip", "link", "set", "dev", "far0", "mtu", "1466")
    for one in doctor()["checks"]:
        if one["name"] == "other-ipsec":
            for finding in one["findings"]:
                run(*finding["command"].split())
    with cpu(" aes pclmulqdq", "generic-gcm-aesni"), strongswan("5.9.8-5+deb12u6", "12.11\n"):
        return as_text()


def unguarded() -> dict[str, Any]:
    """A config that wants no guard."""
    with given("unguarded.yml"):
        return as_text()


def others() -> dict[str, Any]:
    """strongSwan's own daemon runs; other programs' units are enabled."""
    for name in OTHERS:
        (UNITS / name).write_text(
            "[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n"
        )
    run("systemctl", "enable", *OTHERS)
    subprocess.run(["systemctl", "start", STARTER], check=False, capture_output=True, timeout=60)
    try:
        return doctor()
    finally:
        subprocess.run(["systemctl", "stop", STARTER], check=False, capture_output=True, timeout=60)
        run("systemctl", "disable", *OTHERS)


def bosh() -> dict[str, Any]:
    """A VM of the BOSH release, on which the guard's unit is disabled."""
    path = UNITS / "ipsec-agent-remover.path"
    path.write_text("[Path]\nPathExists=/none\n")
    run("systemctl", "disable", TARGET, GUARD)
    try:
        with unpackaged():
            return as_text()
    finally:
        run("systemctl", "enable", TARGET, GUARD)
        path.unlink()
        run("systemctl", "daemon-reload")


def mounted() -> dict[str, Any]:
    """File systems of this VM's encrypted subnet, and one of another machine."""
    words = (sys.executable, "-m", "ipsec_agent", "doctor", "--json")
    Path("/run/mounts").write_text(MOUNTS)
    script = 'mount --bind /run/mounts /proc/$$/mounts; exec "$@"'
    return told("sh", "-c", script, "sh", *words)


def plugins() -> dict[str, Any]:
    """A config that adds plugins."""
    with given("plugins.yml"):
        return doctor()


def warned() -> dict[str, Any]:
    """A config that is good enough."""
    with given("warned.yml"):
        return doctor()


def no_aes() -> dict[str, Any]:
    """A hypervisor that hides the CPU's AES."""
    with cpu("", "generic-gcm-aesni"):
        return doctor()


def no_driver() -> dict[str, Any]:
    """A kernel that does not use it."""
    with cpu(" aes pclmulqdq", "aes-generic"):
        return doctor()


def slow() -> dict[str, Any]:
    """A cipher that does not, refused in FIPS mode."""
    with given("slow.yml"), cpu(" aes pclmulqdq", "generic-gcm-aesni"), fips():
        return doctor()


def hole() -> dict[str, Any]:
    """A strongSwan of before the last corrections."""
    with strongswan("5.9.8-5+deb12u5", "12.11\n"):
        return doctor()


def unjudged() -> dict[str, Any]:
    """That of another distribution."""
    with strongswan("5.9.13-2ubuntu4.24.04.1", "trixie/sid\n"):
        return doctor()


PHASES: tuple[Callable[[], dict[str, Any]], ...] = (
    bare, refused, in_clear, guarded, unguarded, others, bosh, mounted, plugins, warned, no_aes,
    no_driver, slow, hole, unjudged,
)  # fmt: skip


def main() -> None:
    """Do one after the other, and write down what was said."""
    link()
    said = {phase.__name__: phase() for phase in PHASES}
    (RESULTS / "said.json").write_text(json.dumps(said))


if __name__ == "__main__":
    main()
