"""VMs as namespaces on this machine's own kernel: IKE and policies are real, ESP there is none."""

import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.core.problems.problem import ADVICE
from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import ask
from tests.charon import agents
from tests.lab.guest import has_esp
from tests.lab.namespaces import await_links

PYTHON = sys.executable
AGENT = (PYTHON, "-m", "ipsec_agent")
CHARON = "/usr/sbin/charon-systemd"
OTHER_CHARON = next(it for it in ("/usr/lib/ipsec/charon", CHARON) if Path(it).exists())
"""Another build of charon, as a package upgrade brings it; from Debian 13 on the same one, since
the two exclude each other there."""

SCALE = float(os.environ.get("LAB_TIME_SCALE", "1"))
"""How much slower than a real machine the lab may be."""

EVERY = 0.05 if SCALE == 1 else 0.2
"""Seconds between two questions: to answer one costs a slow machine more than a tick of waiting."""

DEADLINE = 20.0 * SCALE
"""Seconds for anything that normally takes one or two."""


def ip(*arguments: str, netns: str = "") -> str:
    """Run ip(8), in a namespace where one is named."""
    where = ("-n", netns) if netns else ()
    return subprocess.run(
        ["ip", *where, *arguments], check=True, capture_output=True, text=True, timeout=DEADLINE
    ).stdout


def ips(*lines: str, netns: str = "") -> None:
    """Have one ip(8) perform many lines: to start it is what takes its time in the lab's guest."""
    where = ("-n", netns) if netns else ()
    try:
        subprocess.run(
            ["ip", *where, "-batch", "-"],
            input="\n".join(lines) + "\n",
            check=True,
            capture_output=True,
            text=True,
            timeout=DEADLINE,
        )
    except subprocess.CalledProcessError as error:
        error.add_note(f"{error.stderr}{lines}")
        raise


def as_nobody(verb: str, *words: str) -> subprocess.CompletedProcess[str]:
    """Run a verb without root."""
    # The interpreter may be where only root can read, so the modules are imported before.
    script = (
        f"import os, sys, ipsec_agent.verbs.{verb}\n"
        "from ipsec_agent.cli import main\n"
        "os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)\n"
        f"sys.exit(main({[verb, *words]!r}))"
    )
    return subprocess.run(
        [PYTHON, "-c", script], check=False, capture_output=True, text=True, timeout=DEADLINE
    )


def until(
    what: Callable[[], Any],
    message: str | Callable[[], str],
    deadline: float = DEADLINE,
    *,
    every: float = EVERY,
) -> Any:
    """The first true answer, asked for every so many seconds.

    Args:
        message: what did not come, or what tells it at the end of the time.

    Raises:
        AssertionError: none came in time.
    """
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        answer = what()
        if answer:
            return answer
        time.sleep(every)
    told = message if isinstance(message, str) else message()
    raise AssertionError(f"not within {deadline} s: {told}")


def listens(path: Path) -> bool:
    """Whether a program takes connections here: a socket's file is there before anybody listens."""
    with contextlib.suppress(OSError), connected(path):
        return True
    return False


def connected(path: Path, deadline: float = DEADLINE) -> socket.socket:
    """A connection to a program, which may be too busy for it at first.

    Raises:
        OSError: nobody listens, or nobody takes it in time.
    """
    end = time.monotonic() + deadline
    channel = socket.socket(socket.AF_UNIX)
    channel.settimeout(deadline)
    while True:
        try:
            channel.connect(str(path))
        except BlockingIOError:
            if time.monotonic() < end:
                time.sleep(EVERY)
                continue
            channel.close()
            raise
        except OSError:
            channel.close()
            raise
        return channel


def halt(pid: int) -> None:
    """SIGSTOP; one thread takes the signal, and until it has, the others go on."""
    os.kill(pid, signal.SIGSTOP)

    def halted() -> bool:
        states = [path.read_text() for path in Path(f"/proc/{pid}/task").glob("*/stat")]
        return all(state.rpartition(") ")[2].startswith("T") for state in states)

    until(halted, f"{pid} is stopped", every=0.01)


NO_ESP = "esp-unavailable"
"""The one problem of a VM that should encrypt, on a kernel that cannot."""


def complaints(status: dict[str, Any]) -> set[str]:
    """The codes of the problems that keep a VM from being healthy."""
    return {
        problem["code"]
        for problem in status.get("problems", ())
        if problem["severity"] != "info" and problem["code"] not in ADVICE
    }


def as_good_as_can_be(status: dict[str, Any]) -> bool:
    """Whether a VM is healthy; where it should encrypt and this kernel has no ESP, it must not be,
    but everything else must be well."""
    if status.get("role") != "encrypt" or has_esp():
        return bool(status.get("healthy"))
    return (
        status["state"] == "degraded" and not status["healthy"] and complaints(status) == {NO_ESP}
    )


COMPLAINTS = ("failed", "warning", "unable", "not supported", "manual", "not found")
"""Words of charon's that a start in which all is well has no use for."""


def complaints_of_charon(log: str) -> list[str]:
    """The lines with such a word; charon 6 tries an XFRM interface, which this kernel may lack."""
    return [
        line
        for line in log.lower().splitlines()
        if any(word in line for word in COMPLAINTS)
        and "failed to create xfrm interface" not in line
    ]


FIGURES: list[str] = []
"""How long each repair took, to be shown at the end."""


@dataclass
class Node:
    """A VM: its namespace, its directory, and its agent while one runs."""

    name: str
    directory: Path
    agent: agents.Running | None = None

    @property
    def run_dir(self) -> Path:
        """The agent's run directory."""
        return self.directory / "run"

    @property
    def config(self) -> Path:
        """The agent's config."""
        return self.directory / "ipsec.yml"

    @property
    def log(self) -> str:
        """The agent's log."""
        return (self.directory / "agent.log").read_text()

    @property
    def charon_log(self) -> str:
        """The log of its charon."""
        return (self.directory / "charon.log").read_text()

    def agent_section(self, **more: Any) -> dict[str, Any]:
        """The node section of its config."""
        return {
            "run_dir": str(self.run_dir),
            "state_dir": str(self.directory / "state"),
            "charon": {"log": str(self.directory / "charon.log")},
            **more,
        }

    def command(self, *words: str) -> list[str]:
        """A command inside the namespace."""
        return ["ip", "netns", "exec", self.name, *words]

    def start(self, *options: str, around: Sequence[str] = ()) -> None:
        """Start the agent, without waiting for it; `around` is a program that runs it."""
        words = ("run", "--config", str(self.config), *options)
        log = self.directory / "agent.log"
        if SCALE > 1 and not around:
            self.agent = agents.fork(self.name, words, log)
            return
        with log.open("ab") as file:
            self.agent = subprocess.Popen(
                self.command(*around, *AGENT, *words),
                cwd=agents.tree(),
                stdin=subprocess.DEVNULL,
                stdout=file,
                stderr=file,
            )

    def up(self) -> dict[str, Any]:
        """Start the agent and wait until it runs."""
        self.start()
        return self.settled()

    def settled(self) -> dict[str, Any]:
        """The status once all is as it should be, as far as this kernel can be."""
        found: dict[str, Any] = until(
            lambda: shown if as_good_as_can_be(shown := self.status()) else None,
            lambda: f"{self.name} healthy: {self.status()}, and its log: {self.log[-1500:]}",
        )
        return found

    @property
    def content(self) -> bool:
        """Whether all is as it should be now, as far as this kernel can be."""
        return as_good_as_can_be(self.status())

    def enforces(self) -> bool:
        """Whether each policy that it wants is in the kernel: they come one after the other."""
        policies = self.status().get("policies", {})
        return bool(policies.get("desired")) and not policies["missing"]

    def status(self) -> dict[str, Any]:
        """What `ipsec-agent status --json` prints, without a program; empty where no agent is."""
        try:
            found: dict[str, Any] = ask(str(self.run_dir / "control.sock"), "status")["status"]
        except ControlError:
            return {}
        return found

    def ask(self, verb: str, *more: str) -> subprocess.CompletedProcess[str]:
        """Run a verb that asks the running agent; `guard down` is one, too."""
        return subprocess.run(
            [*AGENT, *verb.split(), "--socket", str(self.run_dir / "control.sock"), *more],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )

    def run_and_fail(self, around: Sequence[str] = ()) -> tuple[int, str]:
        """Run the agent where it must not start; its exit code and what it said."""
        done = subprocess.run(
            self.command(*around, *AGENT, "run", "--config", str(self.config)),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        return done.returncode, done.stderr

    def end_agent(self, number: signal.Signals = signal.SIGTERM) -> int:
        """End the agent by a signal and return its exit code."""
        assert self.agent is not None
        self.agent.send_signal(number)
        code = self.agent.wait(20)
        self.agent = None
        return code

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Its agent does nothing meanwhile."""
        agent = self.agent
        assert agent is not None
        agent.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            agent.send_signal(signal.SIGCONT)

    @property
    def charon_pid(self) -> int:
        """The pid of its charon."""
        return int((self.run_dir / "charon.pid").read_text())

    def policies(self) -> list[str]:
        """The kernel's policies, without those of sockets, as `SRC DST DIR`."""
        lines = ip("xfrm", "policy", netns=self.name).splitlines()
        return sorted(
            f"{head.split()[1]} {head.split()[3]} {body.split()[1]}"
            for head, body in itertools.pairwise(lines)
            if head.startswith("src ") and body.split()[:1] == ["dir"]
        )

    def send(self, address: str, count: int = 1) -> None:
        """Send UDP datagrams to an address."""
        script = (
            "import socket\n"
            "s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)\n"
            f"[s.sendto(b'x', ('{address}', 9999)) for _ in range({count})]"
        )
        subprocess.run(
            self.command(PYTHON, "-c", script), check=False, capture_output=True, timeout=20
        )

    def clean(self) -> None:
        """End what still runs; only what this node started."""
        if self.agent is not None and self.agent.poll() is None:
            self.agent.kill()
            self.agent.wait(20)
        with contextlib.suppress(OSError, ValueError):
            pid = self.charon_pid
            if str(self.run_dir).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                os.kill(pid, signal.SIGKILL)


def knows(node: Node, address: str, other: Node) -> None:
    """Have a VM know where a neighbour's address is, and not ask for it."""
    (link,) = json.loads(ip("-j", "link", "show", "eth0", netns=other.name))
    words = ("lladdr", link["address"], "dev", "eth0", "nud", "permanent")
    ip("neigh", "replace", address, *words, netns=node.name)


def keeps_ike_sa(node: Node) -> bool:
    """Whether its charon keeps an IKE_SA whose ESP SA the kernel refuses: since 6.0 it does not."""
    return has_esp() or node.status()["charon"]["version"].startswith("5.")


def need_ike_sas(node: Node) -> None:
    """Skip where no IKE_SA lasts."""
    if not keeps_ike_sa(node):
        pytest.skip("this kernel has no ESP, and this charon keeps no IKE_SA without it")


@contextlib.contextmanager
def network(
    directory: Path, count: int, prefix: str = "ct", *, version: int = 4, nics: int = 1
) -> Iterator[list[Node]]:
    """Nodes on one bridge, with the addresses 10.9.0.1, 10.9.0.2 …; all of it goes at the end.

    Args:
        version: 6 gives them fd09::1, fd09::2 … instead.
        nics: a further one is eth1, on a bridge of its own, with 10.9.1.1 and so on.
    """
    names = [f"{prefix}{os.getpid()}-{number}" for number in range(count + 1)]
    hub, *others = names
    # A link to a namespace that leads nowhere else would be one to a container.
    beyond = f"{hub}b"
    nodes = []
    try:
        ips(
            *(f"netns add {name}" for name in (*names, beyond)),
            f"link add beyond netns {hub} type veth peer hub netns {beyond}",
            *(
                f"link add {_link(nic)} netns {name}"
                f" type veth peer {_port(number, nic)} netns {hub}"
                for number, name in enumerate(others, 1)
                for nic in range(nics)
            ),
        )
        ips(*_hub(count, nics), netns=hub)
        for number, name in enumerate(others, 1):
            ips(*_uplinks(number, version, nics), netns=name)
            place = directory / name
            place.mkdir()
            nodes.append(Node(name, place))
            # Whatever is written into it: it has a private key.
            nodes[-1].config.touch(0o600)
            await_links(name, *(_link(nic) for nic in range(nics)))
        ports = (_port(number, nic) for number in range(1, count + 1) for nic in range(nics))
        await_links(hub, *ports)
        yield nodes
    finally:
        for node in nodes:
            node.clean()
        remove((*names, beyond))


def remove(names: Sequence[str]) -> None:
    """Take the namespaces of these names away that are there."""
    there = [name for name in names if Path("/run/netns", name).exists()]
    if there:
        ips(*(f"netns del {name}" for name in there))


def _link(nic: int) -> str:
    return f"eth{nic}"


def _port(number: int, nic: int) -> str:
    return f"p{number}n{nic}" if nic else f"p{number}"


def _hub(count: int, nics: int) -> Iterator[str]:
    """A bridge for each link of the VMs, and a way on."""
    yield "link set beyond up"
    for nic in range(nics):
        yield f"link add br{nic} type bridge"
        yield f"link set br{nic} up"
        for number in range(1, count + 1):
            yield f"link set {_port(number, nic)} master br{nic} up"


def _uplinks(number: int, version: int, nics: int) -> Iterator[str]:
    """What a VM does with its links."""
    yield "link set lo up"
    for nic in range(nics):
        yield f"link set {_link(nic)} up"
        if version == 4 or nic:
            yield f"addr add 10.9.{nic}.{number}/24 dev {_link(nic)}"
        else:
            yield f"addr add fd09::{number:x}/64 dev {_link(nic)} nodad"
