"""What happens to a VM with the package: a version back, forward again, removed, purged.

Runs as a service of the container, and writes down what it saw; the test judges.
"""

import contextlib
import functools
import subprocess
import time
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from ipsec_agent import __version__
from ipsec_agent.core.observed_peers import RememberedPeer
from ipsec_agent.core.outages import Outage
from ipsec_agent.core.problems.kept_faults import Kept
from ipsec_agent.core.problems.peer_faults import Fault, Hearing, Suspect
from ipsec_agent.core.problems.problem import LogLine
from ipsec_agent.host.faults import FaultFile
from ipsec_agent.host.outages import NAME as OUTAGES
from ipsec_agent.host.outages import OutageFile
from ipsec_agent.host.peers import PeerMemory
from tests.boot.driver import AGENT, CHARON, TARGET, Life, journal, pids, run, shown, soon, status
from tests.boot.place import CONFIG, RESULTS, SAVED_GUARD, VM

GUARD = "ipsec-agent-guard.service"
STRONGSWAN = "strongswan.service"
SANDBOX = (
    *("PrivateDevices", "PrivateTmp", "ProtectControlGroups", "ProtectHome", "ProtectHostname"),
    *("ProtectKernelLogs", "ProtectKernelModules", "ProtectKernelTunables", "ProtectSystem"),
)
"""What takes mounts that a container cannot make; tests/boot/test_boot.py has it all."""
FAILED, REFUSES = "10.9.0.77", "peer-refuses-us"
REFUSAL = "received AUTHENTICATION_FAILED notify error"
STATE = SAVED_GUARD.parent
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


def open_sandboxes(root: Path = Path("/")) -> None:
    """Have the units of a container's root ask for nothing that a container cannot do."""
    for unit in (AGENT, CHARON):
        drop_in = root / "etc/systemd/system" / f"{unit}.d" / "lab.conf"
        drop_in.parent.mkdir(parents=True)
        lines = ("[Service]", *(f"{name}=no" for name in SANDBOX), "ProtectProc=default", "")
        drop_in.write_text("\n".join(lines))


def prepare() -> None:
    """The VM's link, without a peer, and units without what the container cannot do."""
    open_sandboxes()
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


def remember() -> None:
    """Have each file of the state say something, as this version writes it."""
    now, peer = time.time(), ip_address(FAILED)
    run("systemctl", "stop", AGENT)
    fault = Fault(LogLine(REFUSES, REFUSAL, FAILED, "", now - 60), now - 600)
    suspect = Suspect(FAILED, (fault,), Hearing(answered=now - 60, tried=now - 60))
    FaultFile(STATE / "faults.json").keep(Kept((suspect,)), at_once=True)
    PeerMemory(STATE / "peers.json").write([RememberedPeer(peer, now - 60)])
    outage = Outage(peer, now - 900, now - 700, REFUSES, REFUSAL)
    OutageFile(STATE / OUTAGES).keep((outage,), at_once=True)
    run("systemctl", "start", AGENT)
    soon(runs, "the agent runs")


def told() -> dict[str, Any]:
    """What the agent tells of what was before it."""
    return {
        "status": status(),
        "state": {path.name: path.read_text() for path in STATE.iterdir()},
        "journal": run("journalctl", f"--unit={AGENT}", "--boot", "--output=cat").stdout,
    }


def replaced(life: Life) -> None:
    """A version before, and forward again."""
    this, older = packages()
    with life.phase("remembered") as found:
        remember()
        found.update(told())
    for name, path in (("downgraded", older), ("upgraded", this)):
        with life.phase(name) as found:
            before = pids()[1]
            found["policies_before"] = policies()
            found["said"] = dpkg("--force-downgrade", "--install", path)
            soon(functools.partial(runs, before), "the agent runs")
            found["agent_before"] = before
            found["says"] = run("ipsec-agent", "--version").stdout
            found.update(told())
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
        life.through((installed, started, replaced, removed), journal)
    finally:
        with contextlib.suppress(OSError):
            life.save()


if __name__ == "__main__":
    main()
