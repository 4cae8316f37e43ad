"""What happens to a VM with the package: a version back, forward again, removed, purged.

Runs as a service of the container, and writes down what it saw; the test judges.
"""

import contextlib
import functools
import subprocess
from pathlib import Path
from typing import Any

from ipsec_agent import __version__
from tests.boot.driver import AGENT, CHARON, TARGET, Life, journal, pids, run, shown, soon, status
from tests.boot.place import CONFIG, RESULTS, SAVED_GUARD, VM

GUARD = "ipsec-agent-guard.service"
STRONGSWAN = "strongswan.service"
SANDBOX = (
    *("PrivateDevices", "PrivateTmp", "ProtectControlGroups", "ProtectHome", "ProtectHostname"),
    *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectSystem"),
)
"""What takes mounts that a container cannot make; tests/boot/test_boot.py has it all."""
PLACES = (CONFIG, SAVED_GUARD, Path("/usr/bin/ipsec-agent"), Path("/usr/lib/ipsec-agent"))


def dpkg(*words: str) -> str:
    """What dpkg says, and the scripts that it runs.

    Raises:
        AssertionError: it failed.
    """
    done = subprocess.run(
        ["dpkg", *words],
        check=False,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=180,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


def packages() -> tuple[str, str]:
    """The paths of this version's package, and of the one before."""
    paths = sorted(map(str, RESULTS.glob("*.deb")), key=lambda it: f"_{__version__}_" not in it)
    this, before = paths
    return this, before


def policies() -> str:
    """The kernel's policies, as `ip` lists them."""
    return run("ip", "xfrm", "policy").stdout


def runs(before: str = "") -> bool:
    """Whether an agent, not the one with that pid, has finished its start."""
    found = status()
    return found.get("state") in {"running", "degraded"} and str(found["pid"]) != before


def seen() -> dict[str, Any]:
    """What there is of the package."""
    return {
        "states": {unit: shown(unit, "ActiveState") for unit in (TARGET, AGENT, CHARON)},
        "enabled": {
            unit: run("systemctl", "is-enabled", unit, check=False).stdout.strip()
            for unit in (TARGET, GUARD, STRONGSWAN)
        },
        "there": [str(path) for path in PLACES if path.exists()],
        "policies": policies(),
        "version": run("dpkg-query", "-Wf", "${Version}", "ipsec-agent", check=False).stdout,
    }


def prepare() -> None:
    """The VM's link, without a peer, and units without what the container cannot do."""
    for unit in (AGENT, CHARON):
        drop_in = Path("/etc/systemd/system", f"{unit}.d", "lab.conf")
        drop_in.parent.mkdir(parents=True)
        lines = ("[Service]", *(f"{name}=no" for name in SANDBOX), "ProtectProc=default", "")
        drop_in.write_text("\n".join(lines))
    run("ip", "link", "set", "lo", "up")
    run("ip", "link", "add", "eth0", "type", "veth", "peer", "name", "far0")
    run("ip", "link", "set", "far0", "up")
    run("ip", "address", "add", f"{VM}/24", "dev", "eth0")
    run("ip", "link", "set", "eth0", "up")


def installed(life: Life) -> None:
    """Without a config, and so nothing runs, not even where it is asked for."""
    with life.phase("installed") as found:
        run("systemctl", "enable", "--now", STRONGSWAN)
        found["said"] = dpkg("--install", packages()[0])
        run("systemctl", "start", TARGET)
        found.update(seen())


def started(life: Life) -> None:
    """The config is written, and the target, which is active, is started again."""
    with life.phase("started") as found:
        CONFIG.write_text((RESULTS / "vm.yml").read_text())
        CONFIG.chmod(0o600)
        run("systemctl", "start", "--no-block", TARGET)
        soon(runs, "the agent runs")
        found.update(seen())


def replaced(life: Life) -> None:
    """A version before, and forward again."""
    this, older = packages()
    for name, path in (("downgraded", older), ("upgraded", this)):
        with life.phase(name) as found:
            before = pids()[1]
            found["policies_before"] = policies()
            found["said"] = dpkg("--force-downgrade", "--install", path)
            soon(functools.partial(runs, before), "the agent runs")
            found["agent_before"] = before
            found["says"] = run("ipsec-agent", "--version").stdout
            found.update(seen())


def removed(life: Life) -> None:
    """IPsec ends; then all of it goes, the guard, too."""
    with life.phase("removed") as found:
        found["said"] = dpkg("--remove", "ipsec-agent")
        found.update(seen())
    with life.phase("purged") as found:
        found["said"] = dpkg("--purge", "ipsec-agent")
        found.update(seen())


def main() -> None:
    """Live."""
    life = Life()
    prepare()
    try:
        for act in (installed, started, replaced, removed):
            act(life)
            if any("failed" in found for found in life.phases.values()):
                journal()
                break
    finally:
        with contextlib.suppress(OSError):
            life.save()


if __name__ == "__main__":
    main()
