"""What happens to the VM in its life: the phases, one after the other, and what each one found.

Runs as a service of the guest. It judges nothing: it writes down when each phase began and ended,
and what was seen in it, to /results/phases.json; the test on the machine judges.
"""

import contextlib
import functools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any

from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import ask
from tests.boot.place import BARE, CONFIG, CONTROL, LAB, RESULTS, RUN_DIR, VCAP, VM, VM_NS
from tests.boot.stage import FAREWELL
from tests.boot.story import CHARON_KILLED, LIMITS
from tests.charon.nodes import CHARON as CHARON_PROGRAM
from tests.charon.nodes import OTHER_CHARON, Node
from tests.lab.truth import Entry, Kernel, alive, traps

AGENT, CHARON = "ipsec-agent.service", "ipsec-agent-charon.service"
DRAIN, JOB = "ipsec-agent-drain.service", "lab-job.service"
TARGET = "ipsec-agent.target"
PATIENCE = 90.0
EVERY = 0.05
SETTLE = 2.0
"""Seconds at the end of each phase in which only the traffic flows."""


def run(*words: str, check: bool = True) -> subprocess.CompletedProcess[str]:
    """Run a program."""
    return subprocess.run(words, check=check, capture_output=True, text=True, timeout=120)


def shown(unit: str, name: str) -> str:
    """A property of a unit."""
    return run("systemctl", "show", "--value", f"--property={name}", unit).stdout.strip()


def pids() -> tuple[str, str]:
    """Of charon and the agent, "0" where there is none; each program takes a while in the guest."""
    charon, agent = run(
        "systemctl", "show", "--value", "--property=MainPID", CHARON, AGENT
    ).stdout.split()
    return charon, agent


def exited(unit: str) -> float:
    """When its main process ended last, in seconds of the guest's monotonic time."""
    return int(shown(unit, "ExecMainExitTimestampMonotonic")) / 1e6


def status(control: str = CONTROL) -> dict[str, Any]:
    """The agent's status; empty where none answers."""
    try:
        found: dict[str, Any] = ask(control, "status")["status"]
    except ControlError:
        return {}
    return found


def confinement(pid: str) -> str:
    """The AppArmor profile that holds a process, and its mode."""
    with contextlib.suppress(OSError):
        return Path("/proc", pid, "attr/current").read_text().strip()
    return ""


def enforcing(before: str = "") -> bool:
    """Whether an agent, not the one with that pid, finds nothing wrong but the VM without IPsec."""
    found = status()
    return (
        found.get("state") in {"running", "degraded"}
        and str(found["pid"]) != before
        and all(BARE in problem["message"] for problem in found["problems"])
    )


def soon(what: Callable[[], Any], message: str, every: float = 0.5) -> None:
    """Wait until it is so; looks are far apart, for the guest is slow.

    Raises:
        AssertionError: it is not in time.
    """
    end = time.monotonic() + PATIENCE
    while not what():
        assert time.monotonic() < end, f"not within {PATIENCE} s: {message}"
        time.sleep(every)


def peer_knows_us() -> bool:
    """Whether the peer has an SA with the VM."""
    found = status(str(LAB / "run" / "control.sock")).get("peers", [])
    return any(peer["address"] == VM and peer["child_sas"] for peer in found)


class Itself(Node):
    """The VM under test; the units say where its agent and charon have their files."""

    @property
    def run_dir(self) -> Path:
        """The agent's run directory."""
        return RUN_DIR


class Carrier:
    """The charon that carries the traffic, and its traps, as charon and the kernel know them."""

    def __init__(self) -> None:
        self._vm = Itself(VM_NS, LAB)
        self._pid = int(shown(CHARON, "MainPID"))
        self._names = traps(self._vm)
        self._traps = self._standing()
        assert self._names
        assert self._traps

    def _standing(self) -> frozenset[Entry]:
        with Kernel(VM_NS) as kernel:
            return kernel.traps()

    def replaced(self) -> bool:
        """Whether another one has all its traps, and so has the kernel."""
        return (
            not alive(self._pid)
            and traps(self._vm) >= self._names
            and self._traps <= self._standing()
        )


class Life:
    """The phases so far."""

    def __init__(self) -> None:
        self.phases: dict[str, dict[str, Any]] = {}

    @contextlib.contextmanager
    def phase(self, name: str) -> Iterator[dict[str, Any]]:
        """A span of the VM's life; what it finds goes into the dictionary."""
        before = next(reversed(self.phases.values()), None)
        found: dict[str, Any] = {
            "began": time.monotonic(),
            "charon_before": before["charon_after"] if before else pids()[0],
        }
        self.phases[name] = found
        try:
            yield found
            time.sleep(SETTLE)
        except (AssertionError, subprocess.SubprocessError, OSError) as error:
            found["failed"] = f"{type(error).__name__}: {error}; {status().get('problems')}"
        finally:
            found["ended"] = time.monotonic()
            found["charon_after"], found["agent"] = pids()
            found["apparmor"] = confinement(found["charon_after"])
            found["guard"] = run("nft", "list", "table", "inet", "ipsec_agent", check=False).stdout
            self.save()

    def through(
        self, acts: Iterable[Callable[["Life"], None]], explain: Callable[[], None]
    ) -> None:
        """Live through all of it, until something fails; then keep what explains it."""
        for act in acts:
            act(self)
            if any("failed" in found for found in self.phases.values()):
                explain()
                return

    def save(self) -> None:
        """Keep what is known."""
        (RESULTS / "phases.json").write_text(json.dumps(self.phases, indent=1))


def boot(life: Life) -> None:
    """From power on to IPsec."""
    with life.phase("boot") as found:
        found["began"] = 0.0
        soon(enforcing, "the agent enforces")
        soon(peer_knows_us, "the peer has an SA")
        found["harmed"] = int(shown(AGENT, "ExecMainStartTimestampMonotonic")) / 1e6
        found["order"] = {
            unit: int(shown(unit, "ActiveEnterTimestampMonotonic"))
            for unit in ("ipsec-agent-guard.service", "network-pre.target", AGENT, "network.target")
        }
        found["start"] = run("systemd-analyze", check=False).stdout


def reload(life: Life) -> None:
    """A good config, then a bad one."""
    with life.phase("reload") as found:
        found["code"] = run("systemctl", "reload", AGENT, check=False).returncode
    with life.phase("refused") as found:
        good = CONFIG.read_text()
        CONFIG.write_text(good.replace("ipsec_subnets", "ipsec_subnet"))
        found["code"] = run("systemctl", "reload", AGENT, check=False).returncode
        CONFIG.write_text(good)
        found["active"] = shown(AGENT, "ActiveState")


def agent_ends(life: Life) -> None:
    """Restarted, and hung until the watchdog sees it, and has it killed."""
    ways: dict[str, Callable[[str], Any]] = {
        "restart": lambda _: run("systemctl", "restart", AGENT),
        "hung": lambda pid: run("kill", "-STOP", pid),
    }
    for name, how in ways.items():
        with life.phase(name) as found:
            before = shown(AGENT, "MainPID")
            restarts = int(shown(AGENT, "NRestarts"))
            found["harmed"] = time.monotonic()
            how(before)
            soon(functools.partial(enforcing, before), "the agent enforces")
            found["healed"] = time.monotonic()
            found["journal"] = run("journalctl", "--unit", AGENT, "--lines=30").stdout
            found["restarts"] = int(shown(AGENT, "NRestarts")) - restarts


def told_to_drain(pid: str, name: str) -> None:
    """What `monit stop ipsec` does, while a job runs; return once the drain waits for that."""
    path = VCAP / "sys/run" / name / f"{name}.pid"
    path.parent.mkdir(parents=True)
    path.write_text(pid)
    run("systemctl", "start", "--no-block", DRAIN)
    run("systemctl", "stop", AGENT)
    soon(lambda: name in run("ipsec-agent", "status", check=False).stderr, "the drain waits")


def drained(life: Life) -> None:
    """A drain is given up by the agent's start; another one ends charon after the last job."""
    with life.phase("draining") as found:
        told_to_drain(shown(JOB, "MainPID"), "lab-job")
        found["states"] = shown(AGENT, "ActiveState"), shown(DRAIN, "ActiveState")
    with life.phase("given-up") as found:
        found["harmed"] = time.monotonic()
        run("systemctl", "start", AGENT)
        found["states"] = shown(AGENT, "ActiveState"), shown(DRAIN, "ActiveState")
        found["result"] = shown(DRAIN, "Result")
        soon(enforcing, "the agent enforces")
        found["healed"] = time.monotonic()
    shutil.rmtree(VCAP)
    said = RESULTS / "farewell-drained.json"
    command = [sys.executable, "-I", "-S", str(FAREWELL), str(said)]
    with life.phase("drained") as found, subprocess.Popen(command) as job:
        told_to_drain(str(job.pid), "nfs")
        found["before"] = pids()[0]
        job.terminate()
        job.wait(PATIENCE)
        found["farewell"] = json.loads(said.read_text())
        soon(lambda: shown(DRAIN, "ActiveState") == "inactive", "the drain has ended")
        found["result"] = shown(DRAIN, "Result"), shown(CHARON, "Result")
        found["charon_ended"] = exited(CHARON)
        found["policies"] = run("ip", "xfrm", "policy").stdout.count("dir out priority")
        found["status"] = run("ipsec-agent", "status", check=False).stderr
        soon(lambda: not peer_knows_us(), "the peer was told")
    with life.phase("started") as found:
        found["harmed"] = time.monotonic()
        run("systemctl", "start", TARGET)
        soon(enforcing, "the agent enforces")
        soon(peer_knows_us, "the peer has an SA")
        found["healed"] = time.monotonic()


def charon_killed(life: Life) -> None:
    """Its unit starts another, the agent fills it; again where that took too long."""
    for name in CHARON_KILLED:
        with life.phase(name) as found:
            carrier = Carrier()
            found["harmed"] = time.monotonic()
            os.kill(int(found["charon_before"]), signal.SIGKILL)
            soon(carrier.replaced, "another charon with its traps", EVERY)
            found["healed"] = time.monotonic()
            soon(enforcing, "the agent enforces")
            soon(peer_knows_us, "the peer has an SA")
        if "failed" in found or found["healed"] - found["harmed"] <= LIMITS[name]:
            break


def upgraded(life: Life) -> None:
    """The target stops, charon is replaced by another build, and the target starts."""
    carrier = Carrier()
    with life.phase("stopped") as found:
        run("systemctl", "stop", TARGET)
        soon(lambda: shown(CHARON, "ActiveState") == "inactive", "charon has ended")
        found["result"] = shown(CHARON, "Result")
        found["state"] = shown(CHARON, "ActiveState")
        found["policies"] = run("ip", "xfrm", "policy").stdout.count("dir out priority")
        soon(lambda: not peer_knows_us(), "the peer was told")
    with life.phase("upgraded") as found:
        CONFIG.write_text(CONFIG.read_text().replace(CHARON_PROGRAM, OTHER_CHARON))
        found["harmed"] = time.monotonic()
        run("systemctl", "start", "--no-block", TARGET)
        soon(carrier.replaced, "another charon with its traps", EVERY)
        found["healed"] = time.monotonic()
        soon(enforcing, "the agent enforces")
        soon(peer_knows_us, "the peer has an SA")
        found["program"] = run("readlink", f"/proc/{shown(CHARON, 'MainPID')}/exe").stdout.strip()


def journal() -> None:
    """Keep systemd's journal for whoever looks for the failure's cause; it takes a while."""
    with (RESULTS / "journal").open("w") as file:
        subprocess.run(
            ["journalctl", "--boot", "--output=short-monotonic", "--no-hostname"],
            check=False,
            stdout=file,
            timeout=60,
        )


def until_poweroff(
    acts: Iterable[Callable[[Life], None]], explain: Callable[[], None] = journal
) -> None:
    """Live through all of it, and have the power go; what is known is kept."""
    life = Life()
    try:
        life.through(acts, explain)
    finally:
        life.phases["poweroff"] = {"began": time.monotonic()}
        with contextlib.suppress(OSError):
            life.save()
        run("systemctl", "poweroff", "--no-block")


if __name__ == "__main__":
    until_poweroff((boot, reload, agent_ends, drained, charon_killed, upgraded))
