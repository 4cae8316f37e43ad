"""How long the agent takes with a real charon, beside the programs that do the same without it.

`python -m bench.agent [SUBNETS...]`, as root: in a network namespace of its own. Each line is a
figure, in seconds if it says nothing else: the median of all times that it was measured. The anchor
is a program that does the same and no more, measured in the same run. `cpu` are seconds of CPU time
of agent and charon together, in which other load on the machine counts little; with those of the
programs that the agent runs, where neither of the two begins or ends.
"""

import contextlib
import functools
import json
import os
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import psutil

from ipsec_agent.config_file import load_config
from ipsec_agent.core.budget import MOST
from ipsec_agent.core.desired import desired
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.swanctl import connection_message
from ipsec_agent.host.control_client import ask
from tests.certificates import rsa_key
from tests.charon.nodes import AGENT, CHARON, PYTHON, Node, ip, network, until
from tests.lab.deployment import A, configure, issued
from tests.lab.truth import Entry, Kernel, alive

OWN = ip_address(A)
SUBNETS = (2, 400)
TIMES, MANY = 5, 20
EVERY = 0.002
IDLE = 20.0
"""Seconds."""

DEADLINE = 120.0

LEAST_BUDGET = int(MOST) // 2

BROADCASTS = 3
"""Policies that the agent has for the broadcasts of the links, of which no file can know."""


def main(words: list[str]) -> None:
    """Print the figures."""
    counts = tuple(map(int, words)) or SUBNETS
    with tempfile.TemporaryDirectory(prefix="bench-") as place:
        for number, count in enumerate(counts):
            directory = Path(place, str(count))
            directory.mkdir()
            with network(directory, 1, f"bn{number}") as (node,), Kernel(node.name) as kernel:
                Bench(node, kernel, count).run()
    programs()


def tell(figure: str, times: list[float], anchor: list[float] | None = None, **more: Any) -> None:
    """Print one figure."""
    line: dict[str, Any] = {"figure": figure, "p50": round(statistics.median(times), 4)}
    if len(times) >= MANY:
        line["p95"] = round(statistics.quantiles(times, n=20)[-1], 4)
    if anchor:
        line["anchor"] = round(statistics.median(anchor), 4)
        line["ratio"] = round(line["p50"] / line["anchor"], 2)
    sys.stdout.write(json.dumps(line | more) + "\n")
    sys.stdout.flush()


def lists(count: int) -> tuple[list[str], list[str]]:
    """So many subnets, half of them encrypted, with an exemption in each."""
    encrypted = ["10.9.0.0/24"]
    encrypted += [f"10.{100 + n // 256}.{n % 256}.0/24" for n in range(count // 2 - 1)]
    return encrypted, [f"{subnet.rpartition('.')[0]}.7/32" for subnet in encrypted]


class Bench:
    """One VM with so many subnets."""

    def __init__(self, node: Node, kernel: Kernel, count: int) -> None:
        self._node, self._kernel, self._count = node, kernel, count
        self._wanted: frozenset[Entry] = frozenset()
        self._used: list[float] = []
        encrypted, exempt = lists(count)
        configure([node], exempt, encrypted)

    def run(self) -> None:
        """All figures."""
        self._tell("exec to enforced", self._starts(), anchor=self._charon_alone())
        self._node.start()
        until(self._enforced, "it enforces", DEADLINE)
        self._tell("an agent's restart", self._restarts())
        self._tell("a deleted policy is back", self._repairs(self._delete, MANY))
        self._tell("policies flushed, all back", self._repairs(self._flush, TIMES))
        self._tell("charon killed, all loaded", self._deaths())
        self._tell("a reload with one subnet more", self._reloads())
        self._rest()
        self._end()

    def _tell(self, figure: str, times: list[float], anchor: list[float] | None = None) -> None:
        used, self._used = self._used, []
        more = {"cpu": round(statistics.median(used), 4)} if used else {}
        tell(f"{figure}, {self._count} subnets", times, anchor, **more)

    def _enforced(self) -> bool:
        status = self._node.status()
        missing = status.get("policies", {}).get("missing", ["all"])
        return not missing and bool(status["guard"]["state"] == "up")

    def _back(self) -> bool:
        return len(self._kernel.traps()) >= len(self._wanted)

    def _timed(self, act: Callable[[], object], whole: Callable[[], bool]) -> float:
        before, began = self._cpu_times(), time.monotonic()
        act()
        until(whole, "all is whole", DEADLINE, every=EVERY)
        took, after = time.monotonic() - began, self._cpu_times()
        # charon is the agent's child, too: where it has ended or begun, children do not count.
        same = before.keys() == after.keys()
        self._used.append(
            sum(used - before.get(pid, 0.0) for pid, used in after.items() if pid > 0 or same)
        )
        return took

    def _cpu_times(self) -> dict[int, float]:
        """Seconds of CPU time of the agent and of charon, by pid; of those that are there. By the
        negative pid those of the agent's children that have ended."""
        found = {}
        for name in ("agent.pid", "charon.pid"):
            with contextlib.suppress(OSError, ValueError, psutil.Error):
                pid = int((self._node.run_dir / name).read_text())
                times = psutil.Process(pid).cpu_times()
                found[pid] = times.user + times.system
                if name == "agent.pid":
                    found[-pid] = times.children_user + times.children_system
        return found

    def _end(self) -> None:
        ask(str(self._node.run_dir / "control.sock"), "stop", deadline=DEADLINE)
        assert self._node.agent is not None
        self._node.agent.wait(DEADLINE)
        until(lambda: not self._kernel.traps(), "charon has ended", DEADLINE)

    def _starts(self) -> list[float]:
        self._node.start()
        until(self._enforced, "it enforces", DEADLINE)
        self._wanted = self._kernel.traps()
        self._end()
        times = []
        for _ in range(TIMES):
            times.append(self._timed(self._node.start, self._back))
            until(self._enforced, "it enforces", DEADLINE)
            self._end()
        return times

    def _charon_alone(self) -> list[float]:
        place = self._node.directory / "anchor"
        with swanctl_files(self._node, place) as environment:
            return [self._load_all(place, environment) for _ in range(TIMES)]

    def _load_all(self, place: Path, environment: Mapping[str, str]) -> float:
        socket = place / "vici"
        socket.unlink(missing_ok=True)
        began = time.monotonic()
        with subprocess.Popen(
            self._node.command(CHARON), env=environment, stderr=subprocess.DEVNULL
        ) as charon:
            try:
                until(socket.exists, "charon listens", DEADLINE, every=EVERY)
                done = subprocess.run(
                    [
                        *("swanctl", "--load-all", "--noprompt"),
                        *("--file", str(place / "swanctl.conf"), "--uri", f"unix://{socket}"),
                    ],
                    env=environment,
                    check=True,
                    capture_output=True,
                    text=True,
                    timeout=DEADLINE,
                )
                took = time.monotonic() - began
                found = self._kernel.traps()
                assert len(found) >= len(self._wanted) - BROADCASTS, done.stdout
            finally:
                charon.terminate()
        return took

    def _restarts(self) -> list[float]:
        return [self._timed(self._replace, self._enforced) for _ in range(TIMES)]

    def _replace(self) -> None:
        agent = self._node.agent
        assert agent is not None
        agent.kill()
        agent.wait(DEADLINE)
        self._node.start()

    def _repairs(self, harm: Callable[[], None], times: int) -> list[float]:
        took = []
        for number in range(times):
            if number % LEAST_BUDGET == 0:
                # Another agent, with the whole budget of repairs (core/budget.py).
                self._replace()
                until(self._enforced, "it enforces", DEADLINE)
            time.sleep(0.5)
            took.append(self._timed(harm, self._back))
        return took

    def _delete(self) -> None:
        ends = ("src", f"{A}/32", "dst", "10.9.0.0/24", "dir", "out")
        ip("xfrm", "policy", "delete", *ends, netns=self._node.name)

    def _flush(self) -> None:
        ip("xfrm", "policy", "flush", netns=self._node.name)

    def _deaths(self) -> list[float]:
        took = []
        for _ in range(TIMES):
            process = psutil.Process(self._node.charon_pid)
            took.append(self._timed(process.kill, functools.partial(self._whole, process.pid)))
            time.sleep(1)
        return took

    def _whole(self, before: int) -> bool:
        """Whether another charon than that has all connections."""
        if alive(before):
            return False
        status = self._node.status()
        charon = status.get("charon") or {}
        return charon.get("pid") not in {None, before} and self._enforced()

    def _reloads(self) -> list[float]:
        encrypted, exempt = lists(self._count)
        took = []
        for number in range(TIMES):
            configure([self._node], exempt, [*encrypted, f"10.90.{number}.0/24"])
            took.append(
                self._timed(self._reload, functools.partial(self._more, self._kernel.traps()))
            )
        return took

    def _reload(self) -> None:
        ask(str(self._node.run_dir / "control.sock"), "reload", deadline=DEADLINE)

    def _more(self, before: frozenset[Entry]) -> bool:
        return bool(self._kernel.traps() - before)

    def _rest(self) -> None:
        agent = self._node.agent
        assert agent is not None
        process = psutil.Process(agent.pid)
        time.sleep(2)
        before = process.cpu_times()
        time.sleep(IDLE)
        after = process.cpu_times()
        used = after.user + after.system - before.user - before.system
        self._tell("idle, % of a core", [100 * used / IDLE])
        self._tell("resident memory, MiB", [process.memory_info().rss / 2**20])


@contextlib.contextmanager
def swanctl_files(node: Node, place: Path) -> Iterator[dict[str, str]]:
    """What charon and swanctl(8) need for the same connections, without an agent."""
    place.mkdir()
    try:
        conf = (node.run_dir / "strongswan.conf").read_text()
        ours = str(node.run_dir / "charon.vici")
        (place / "strongswan.conf").write_text(conf.replace(ours, str(place / "vici")))
        connections: dict[str, Any] = {}
        wish = desired(load_config(node.config), Placement(OWN, (OWN,)))
        for one in wish.connections:
            connections |= connection_message(one)
        ca, leaf = issued(rsa_key())
        (place / "leaf.pem").write_text(leaf.cert_pem)
        (place / "key.pem").write_text(leaf.key_pem)
        (place / "ca.pem").write_text(ca.cert_pem)
        tree = {
            "connections": connections,
            "secrets": {"private": {"file": str(place / "key.pem")}},
            "authorities": {"ca": {"file": str(place / "ca.pem")}},
        }
        (place / "swanctl.conf").write_text("".join(section(tree, place)))
        yield {
            **os.environ,
            "STRONGSWAN_CONF": str(place / "strongswan.conf"),
            "SWANCTL_DIR": str(place),
        }
    finally:
        shutil.rmtree(place)


def section(tree: Mapping[str, Any], place: Path) -> Iterator[str]:
    """A mapping as swanctl.conf(5) has it; certificates are files there."""
    for name, value in tree.items():
        if isinstance(value, Mapping):
            # A name with a dot or a slash is none there.
            yield f"{re.sub(r'[^a-z0-9-]', '-', name)} {{\n"
            yield from section(value, place)
            yield "}\n"
        elif name in {"certs", "cacerts"}:
            yield f"{name} = {place / ('leaf.pem' if name == 'certs' else 'ca.pem')}\n"
        else:
            yield f"{name} = {', '.join(value) if isinstance(value, list) else value}\n"


def programs() -> None:
    """What the command line takes, beside the interpreter alone."""
    alone = run_times(alone_words())
    with (
        tempfile.TemporaryDirectory(prefix="bench-") as place,
        network(Path(place), 1, "bp") as (node,),
    ):
        configure([node], [])
        node.start()
        until(node.status, "it answers", DEADLINE)
        control = ("--socket", str(node.run_dir / "control.sock"))
        for name, words in (
            ("status", ["status", *control]),
            ("guard status", ["guard", "status", *control]),
            ("guard up", ["guard", "up", *control]),
            ("check", ["check", str(node.config)]),
            ("plan", ["plan", "--config", str(node.config)]),
        ):
            command = node.command(*AGENT, *words)
            tell(f"ipsec-agent {name}", run_times(command), run_times(node.command(*alone_words())))
    tell("python3 -c pass", alone)


def alone_words() -> list[str]:
    """The interpreter, doing nothing."""
    return [PYTHON, "-c", "pass"]


def run_times(command: list[str]) -> list[float]:
    """Seconds of each of some runs of a program."""
    took = []
    for _ in range(2 * TIMES):
        began = time.monotonic()
        subprocess.run(command, check=False, capture_output=True, timeout=DEADLINE)
        took.append(time.monotonic() - began)
    return took


if __name__ == "__main__":
    main(sys.argv[1:])
