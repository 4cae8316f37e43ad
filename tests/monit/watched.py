"""A real monit over a node's agent, with the control files that are shipped."""

import contextlib
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import psutil

from tests.charon.nodes import DEADLINE, PYTHON, SCALE, Node, until

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "monit"
MONIT = os.environ.get("MONIT", "monit")
"""Another monit than the installed one: a 5.2.5 passes all but what needs `check program`."""

SETTINGS = """\
set daemon 1
set logfile {directory}/monit.log
set pidfile {directory}/monit.pid
set idfile {directory}/monit.id
set statefile {directory}/monit.state
set httpd port 2812 and use address 127.0.0.1 allow 127.0.0.1
"""

RUNNING = ("OK", "running")
STOPPED = ("Not monitored", "not monitored")
FAILS = ("Connection failed", "Status failed")
"""The words of 5.33 and of 5.2.5."""


@dataclass(frozen=True, slots=True)
class Monit:
    """A monit that watches the agent of a node."""

    node: Node
    daemon: subprocess.Popen[bytes]

    def ask(self, *words: str) -> str:
        """The output of a monit command, without colours."""
        done = subprocess.run(
            self.node.command(MONIT, "-c", str(self.node.directory / "monitrc"), *words),
            check=False,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
        return re.sub(r"\x1b\[[0-9;]*m", "", done.stdout + done.stderr)

    def summary(self, service: str) -> str:
        """What `monit summary` says of a service; empty where it says nothing."""
        for line in self.ask("summary").splitlines():
            # 5.2.5: Process 'ipsec'    running. 5.33: ipsec    OK    Process.
            if found := re.match(
                rf"\w+ '{service}' +(.+)| {service}  +(.+?)  +(Process|Program)", line
            ):
                return (found[1] or found[2]).strip()
        return ""

    def says(self, words: tuple[str, ...], service: str = "ipsec") -> None:
        """Wait until the summary says one of these words of a service."""
        until(
            lambda: self.summary(service) in words,
            f"monit says {words} of {service}",
            60 * SCALE,
        )

    @property
    def log(self) -> str:
        """monit's own log."""
        return (self.node.directory / "monit.log").read_text()


def agent_pid(node: Node) -> int:
    """The pid in the agent's pid file, 0 where there is none."""
    with contextlib.suppress(OSError, ValueError):
        return int((node.run_dir / "agent.pid").read_text())
    return 0


def control(node: Node, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
    """Run the node's ipsec-agent-ctl, as monit or a pre-start script does."""
    return subprocess.run(
        node.command(str(node.directory / "monit" / "ipsec-agent-ctl"), verb, *_words(node), *more),
        check=False,
        capture_output=True,
        text=True,
        timeout=120,
        env={},
    )


def _words(node: Node) -> tuple[str, ...]:
    return (
        f"config={node.config}",
        f"run_dir={node.run_dir}",
        f"log={node.directory}/agent.log",
        f"agent={node.directory}/monit/ipsec-agent",
    )


def install(node: Node, file: str = "ipsec-agent.monitrc") -> None:
    """Put the shipped files into a node's directory; of the control file only paths change,
    and how patient monit is."""
    place = node.directory / "monit"
    shutil.copytree(SHIPPED, place)
    agent = place / "ipsec-agent"
    agent.write_text(f'#!/bin/sh\nPYTHONPATH={ROOT} exec {PYTHON} -m ipsec_agent "$@"\n')
    agent.chmod(0o755)
    config, run_dir, *others = _words(node)
    text = (SHIPPED / file).read_text()
    for shipped, ours in (
        ("/usr/local/share/ipsec-agent/monit/", f"{place}/"),
        ("/usr/local/bin/ipsec-agent", str(agent)),
        ("config=/etc/ipsec-agent/ipsec.yml", config),
        ("run_dir=/run/ipsec-agent", " ".join((run_dir, *others))),
        ("/run/ipsec-agent", str(node.run_dir)),
        # A test has no minute: 5.33 asks no socket before a process is older than its start may
        # take, and a hung agent's answer is awaited in full.
        ("with timeout 60 seconds", "with timeout 8 seconds"),
        ("with timeout 5 seconds", "with timeout 1 seconds"),
    ):
        text = text.replace(shipped, ours)
    path = node.directory / "monitrc"
    path.write_text(SETTINGS.format(directory=node.directory) + text)
    path.chmod(0o600)


@contextlib.contextmanager
def monit_over(node: Node) -> Iterator[Monit]:
    """A monit over a node where it is installed; it ends first, then the agent that it started."""
    daemon = subprocess.Popen(
        node.command(MONIT, "-I", "-c", str(node.directory / "monitrc")),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield Monit(node, daemon)
    finally:
        daemon.terminate()
        _wait(daemon)


def _wait(daemon: subprocess.Popen[bytes]) -> None:
    """Wait for monit's end.

    5.34 ends a program check that is under way, and then waits for ever for the end of that: with
    SIGCHLD blocked it never reaps it.
    """
    with contextlib.suppress(subprocess.TimeoutExpired):
        daemon.wait(30)
        return
    states = [child.status() for child in psutil.Process(daemon.pid).children()]
    assert states == [psutil.STATUS_ZOMBIE], states
    daemon.kill()
    daemon.wait(20)


def end(node: Node) -> None:
    """Kill the agent that monit or the script started, if it still is that one."""
    pid = agent_pid(node)
    with contextlib.suppress(OSError):
        if str(node.config).encode() in Path(f"/proc/{pid}/cmdline").read_bytes():
            os.kill(pid, signal.SIGKILL)
