"""What happens to a VM of a BOSH deployment, and what each phase found; the test judges.

Called with the name of the life: with BOSH, or the one after the power was off.
"""

import json
import shutil
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ipsec_agent.host.control_client import ask
from tests.boot import bosh_agent
from tests.boot.bosh_agent import CHANGED, RECREATE, SHUTDOWN
from tests.boot.driver import (
    AGENT,
    CHARON,
    DRAIN,
    Life,
    enforcing,
    exited,
    journal,
    peer_knows_us,
    run,
    shown,
    soon,
    status,
    until_poweroff,
)
from tests.boot.place import BOSH, DATA_DISK, LAB, REBOOTED, RESULTS, ROOT_DISK
from tests.boot.stage import sandboxes
from tests.charon.nodes import CHARON as OTHER_CHARON

REMOVER_LOG = Path("/var/vcap/sys/log/ipsec/remove.log")
CUT_OFF = 5.0
"""Seconds for which it is looked on how VMs reach each other."""

FAREWELL = RESULTS / "farewell.json"
STATE = Path("/var/lib/ipsec-agent")


def mount_data() -> None:
    """/var/vcap is there, as once the BOSH agent has mounted the data disk."""
    run("tar", "-xf", str(DATA_DISK), "-C", "/")


def keep_root_disk() -> None:
    """Archive what the job has put there, and nothing of the lab's."""
    there = [*bosh_agent.left_of_ipsec(), "/etc/systemd/system/nftables.service.d"]
    kept = [path.removeprefix("/") for path in there if not path.startswith("/run/")]
    run("tar", "-cf", str(ROOT_DISK), "-C", "/", *kept)


def enforced() -> None:
    """Wait until both VMs have IPsec."""
    soon(enforcing, "the agent enforces")
    soon(peer_knows_us, "the peer has an SA")


def peer_is(name: str) -> None:
    """Have the peer reload this config."""
    shutil.copy(RESULTS / f"peer-{name}.yml", LAB / "ipsec.yml")
    ask(str(LAB / "run/control.sock"), "reload", deadline=90, force=False, asks=False)


def policies() -> int:
    """Outgoing policies with a template, of nobody's socket."""
    return run("ip", "xfrm", "policy").stdout.count("dir out priority")


def active() -> str:
    """Units of IPsec's that systemd takes for active."""
    return run("systemctl", "list-units", "--plain", "--no-legend", "ipsec-agent*").stdout


def farewell() -> dict[str, Any]:
    """What the job that needs its network has said at its end."""
    said: dict[str, Any] = json.loads(FAREWELL.read_text())
    FAREWELL.unlink()
    return said


def deployed(life: Life) -> None:
    """For the first time."""
    mount_data()
    with life.phase("deploy") as found:
        bosh_agent.apply()
        bosh_agent.render(RESULTS / "enforced.yml")
        sandboxes()
        bosh_agent.start()
        enforced()
        found["summary"] = bosh_agent.summary()
        shim = run("/var/vcap/packages/strongswan/sbin/ipsec", "statusall", check=False)
        found["statusall"] = shim.stdout


def updated(life: Life) -> None:
    """The same once more."""
    with life.phase("update") as found:
        found["loses_nothing"] = True
        bosh_agent.stop(CHANGED)
        found["stopped"] = {unit: shown(unit, "ActiveState") for unit in (AGENT, DRAIN, CHARON)}
        found["farewell"] = farewell()
        bosh_agent.apply()
        bosh_agent.start()
        enforced()


def upgraded(life: Life) -> None:
    """The next release's package has another charon; the agent is another process anyway."""
    with life.phase("upgrade of charon") as found:
        bosh_agent.stop(CHANGED)
        found["farewell"] = farewell()
        bosh_agent.other_charon(OTHER_CHARON)
        bosh_agent.apply()
        bosh_agent.start()
        enforced()
        found["program"] = run("readlink", f"/proc/{shown(CHARON, 'MainPID')}/exe").stdout.strip()


def ends(found: dict[str, Any]) -> None:
    """What there is to say of IPsec's end."""
    found["farewell"] = farewell()
    found["results"] = [shown(unit, "Result") for unit in (DRAIN, CHARON)]
    found["charon_ended"] = exited(CHARON)
    found["policies"] = policies()
    soon(lambda: not peer_knows_us(), "the peer was told")


def stopped(life: Life, name: str, order: Sequence[str], *, skip_drain: bool = False) -> None:
    """The VM goes, and monit stops in this order."""
    with life.phase(name) as found:
        if skip_drain:
            bosh_agent.monit_stop(order)
            bosh_agent.hooks("post-stop")
        else:
            bosh_agent.stop(SHUTDOWN, RECREATE, order)
        found["states"] = {unit: shown(unit, "ActiveState") for unit in (AGENT, DRAIN, CHARON)}
        ends(found)


def started(life: Life) -> None:
    """By monit alone."""
    with life.phase("start"):
        bosh_agent.start(with_hooks=False)
        enforced()


def removed(life: Life) -> None:
    """The documented way: optional everywhere, then without the job; and back."""
    with life.phase("optional"):
        peer_is("optional")
        bosh_agent.render(RESULTS / "optional.yml")
        bosh_agent.start()
        soon(lambda: status().get("state") in ("running", "degraded"), "the agent runs")
        soon(peer_knows_us, "the peer has an SA")
    with life.phase("removal") as found:
        found["loses_nothing"] = True
        without_the_job(found)
        bosh_agent.start()
    with life.phase("re-adding"):
        with_the_job()
    with life.phase("enforced"):
        time.sleep(2)


def removed_while_enforced(life: Life) -> None:
    """Without the first step: the peer enforces IPsec until it is deployed, too; and back."""
    with life.phase("removal while enforced") as found:
        without_the_job(found)
        found["removed"] = time.monotonic()
        found["said"] = REMOVER_LOG.read_text()
        bosh_agent.start()
        time.sleep(CUT_OFF)
    with life.phase("its peer becomes optional"):
        before = answered()
        peer_is("optional")
        soon(lambda: answered() > before, "the peer answers in clear")
    with life.phase("re-adding once more"):
        with_the_job()


def without_the_job(found: dict[str, Any]) -> None:
    """BOSH takes the job away, and the remover all of it."""
    bosh_agent.stop(CHANGED)
    found["farewell"] = farewell()
    bosh_agent.take_away()
    soon(lambda: not STATE.exists(), "the remover has ended")
    soon(lambda: not bosh_agent.left_of_ipsec(), f"{bosh_agent.left_of_ipsec()} are gone")
    soon(lambda: not active(), f"{active()} have ended")
    found["policies"] = policies()


def with_the_job() -> None:
    """BOSH puts it there again, and the peer enforces IPsec, too."""
    bosh_agent.stop(CHANGED)
    bosh_agent.bring_back()
    bosh_agent.render(RESULTS / "enforced.yml")
    sandboxes()
    bosh_agent.start()
    peer_is("enforced")
    enforced()


def answered() -> int:
    """How many datagrams the peer has answered to the VM."""
    return int(json.loads((LAB / "vm.flow").read_text())["answered"])


def draining(life: Life) -> None:
    """A drain waits for a job as the power goes; what is on the root disk is kept before."""
    with life.phase("drain") as found:
        keep_root_disk()
        FAREWELL.unlink(missing_ok=True)
        bosh_agent.tell_drains(SHUTDOWN, RECREATE)
        bosh_agent.monit_stop(["ipsec"])
        found["states"] = {unit: shown(unit, "ActiveState") for unit in (AGENT, DRAIN, CHARON)}


def rebooted(life: Life) -> None:
    """Nothing but the root disk is there, until the BOSH agent has mounted the other one."""
    with life.phase("reboot without hooks") as found:
        found["began"] = 0.0
        found["agent_at_boot"] = shown(AGENT, "ActiveState")
        found["order"] = {
            unit: int(shown(unit, "ActiveEnterTimestampMonotonic"))
            for unit in ("ipsec-agent-guard.service", "network-pre.target", "networking.service")
        }
        mount_data()
        bosh_agent.apply()
        bosh_agent.start(with_hooks=False)
        enforced()


ACTS = {
    BOSH: (
        deployed,
        updated,
        upgraded,
        lambda life: stopped(life, "recreate, ipsec first", ("ipsec", "nfs", "web")),
        started,
        lambda life: stopped(life, "stop --skip-drain", ("web", "nfs", "ipsec"), skip_drain=True),
        removed,
        removed_while_enforced,
        draining,
    ),
    REBOOTED: (rebooted,),
}
"""What happens, by the name of the life."""


def explain() -> None:
    """Keep what says why a phase failed."""
    journal()
    logs = subprocess.run(
        "tail -n 40 /var/vcap/sys/log/ipsec/* /var/vcap/monit/monit.log",
        shell=True,
        check=False,
        capture_output=True,
    )
    (RESULTS / "logs").write_bytes(logs.stdout)


if __name__ == "__main__":
    until_poweroff(ACTS[sys.argv[1]], explain)
