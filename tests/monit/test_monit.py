"""The agent under the real monit: started, ended, brought back, and seen where it is degraded."""

import contextlib
import os
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import make_ca, make_leaf
from tests.charon.nodes import NO_ESP, Node, network, until
from tests.lab.guest import has_esp
from tests.manifests import manifest
from tests.monit.watched import (
    FAILS,
    MONIT,
    RUNNING,
    SHIPPED,
    STOPPED,
    Monit,
    agent_pid,
    control,
    end,
    install,
    monit_over,
)

pytestmark = [pytest.mark.charon, pytest.mark.timeout(240)]

OLD, NEW = "ipsec-agent.monitrc", "ipsec-agent-5.3.monitrc"
needs_check_program = pytest.mark.skipif(
    " 5.2" in subprocess.run([MONIT, "-V"], check=False, capture_output=True, text=True).stdout,
    reason="this monit has no check program",
)
BOTH = (OLD, pytest.param(NEW, marks=needs_check_program))


def program(node: Node) -> Path:
    """The path of the node's charon."""
    return node.directory / "charon-systemd"


def configure(node: Node, days: int = 365, exempt: str = "10.9.0.1/32") -> None:
    """Write the node's config, with a certificate that was made yesterday.

    The VM speaks clear, and so is healthy on a kernel without ESP, too; all that monit does is the
    same.
    """
    ca = make_ca()
    charon = {"log": str(node.directory / "charon.log"), "program": str(program(node))}
    node.config.write_text(
        manifest(
            ["10.9.0.0/24"],
            [exempt],
            leaf=make_leaf(ca, days=days),
            cas=[ca],
            agent=node.agent_section(interval=1, charon=charon),
        )
    )


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """One configured VM, whose charon can be taken away."""
    with network(tmp_path, 1, "mo") as nodes:
        (one,) = nodes
        program(one).symlink_to("/usr/sbin/charon-systemd")
        configure(one)
        yield one
        end(one)


def alive(pid: int) -> bool:
    """Whether a process runs; a zombie does not."""
    try:
        return "\nState:\tZ" not in Path(f"/proc/{pid}/status").read_text()
    except OSError:
        return False


def running(node: Node, monit: Monit) -> tuple[int, int]:
    """The pids of agent and charon, once monit says that all is well."""
    monit.says(RUNNING)
    monit.says(RUNNING, "ipsec-health")
    assert node.status()["healthy"]
    return agent_pid(node), node.charon_pid


def other(node: Node, pid: int) -> int:
    """Wait for an agent with another pid that answers."""
    found: int = until(
        # A hung agent would not say how it is, but after ten seconds.
        lambda: (
            (found := agent_pid(node)) not in {0, pid} and node.status().get("healthy") and found
        ),
        "another agent runs",
        60,
    )
    return found


@pytest.mark.parametrize("file", BOTH)
def test_syntax(node: Node, file: str) -> None:
    """monit accepts the control file as it is shipped, but for the paths."""
    install(node, file)
    done = subprocess.run(
        [MONIT, "-t", "-c", node.directory / "monitrc"], check=False, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "syntax OK" in done.stdout + done.stderr


def test_variants_share_the_process() -> None:
    """The newer control file differs in how it looks at the health, and in nothing else."""
    old, new = (
        (SHIPPED / name).read_text().split("\n\n", 1)[1].split("\n# Warnings, too")[0]
        for name in (OLD, NEW)
    )
    assert old.startswith("check process ipsec ")
    assert old.strip() == new.strip()


@pytest.mark.parametrize("file", BOTH)
def test_start_stop_restart(node: Node, file: str) -> None:
    """monit starts IPsec by itself; stop ends charon and agent; start and restart bring both."""
    install(node, file)
    with monit_over(node) as monit:
        agent, charon = running(node, monit)
        assert node.policies() != []
        # monit's own threads block signals, and a program could inherit that. So does whoever is
        # just starting a program, for a moment.
        until(
            lambda: "\nSigBlk:\t0000000000000000\n" in Path(f"/proc/{agent}/status").read_text(),
            "the agent blocks no signal",
            5,
        )

        monit.ask("stop", "ipsec")
        monit.says(STOPPED)
        # 5.2.5 says so before it stops anything.
        until(lambda: not alive(agent), "the agent has ended", 30)
        # Nobody is to be waited for here.
        until(lambda: not alive(charon), "charon has ended", 30)
        assert node.policies() == []
        assert "IPsec has ended" in node.log

        monit.ask("start", "ipsec")
        started = running(node, monit)
        assert charon not in started

        monit.ask("restart", "ipsec")
        other(node, started[0])
        # The start may come before the drain has ended charon; then it gives the drain up.
        assert running(node, monit)[0] != started[0]


def test_killed_agent_comes_back(node: Node) -> None:
    """kill -9 of the agent: monit starts another, and charon and its policies never notice."""
    install(node)
    with monit_over(node) as monit:
        agent, charon = running(node, monit)
        watch = subprocess.Popen(
            node.command("ip", "xfrm", "monitor"), stdout=subprocess.PIPE, text=True
        )
        os.kill(agent, signal.SIGKILL)
        other(node, agent)
        running(node, monit)
        watch.terminate()

        assert node.charon_pid == charon
        assert watch.communicate(timeout=20)[0] == ""


def test_hung_agent_is_replaced(node: Node) -> None:
    """An agent that answers no longer is killed and started again; charon stays."""
    install(node)
    with monit_over(node) as monit:
        agent, charon = running(node, monit)
        os.kill(agent, signal.SIGSTOP)

        other(node, agent)

        assert not alive(agent)
        assert node.charon_pid == charon
        running(node, monit)


def test_pid_of_another(node: Node) -> None:
    """A stale pid file with the pid of a stranger hides the agent's absence for a moment only."""
    install(node)
    stranger = subprocess.Popen(["sleep", "120"])
    try:
        node.run_dir.mkdir()
        (node.run_dir / "agent.pid").write_text(f"{stranger.pid}\n")
        with monit_over(node) as monit:
            other(node, stranger.pid)
            running(node, monit)
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait(20)


def test_degraded_agent_is_seen(node: Node) -> None:
    """While charon cannot run the service fails, with the cause in the log; nothing restarts it."""
    install(node)
    with monit_over(node) as monit:
        agent, _ = running(node, monit)

        program(node).unlink()
        os.kill(node.charon_pid, signal.SIGKILL)
        monit.says(FAILS)
        said = monit.log
        program(node).symlink_to("/usr/sbin/charon-systemd")

        monit.says(RUNNING)
        assert '"worst": "critical"' in said
        assert "charon" in said.partition('"reason": ')[2]
        assert agent_pid(node) == agent


@pytest.mark.skipif(has_esp(), reason="this kernel has ESP")
def test_kernel_without_esp_is_seen(node: Node) -> None:
    """A VM that should encrypt and cannot is started, enforces, and fails its service for good."""
    configure(node, exempt="10.9.0.3/32")
    install(node)
    assert control(node, "start").returncode == 0
    agent = agent_pid(node)
    assert "10.9.0.1/32 10.9.0.0/24 out" in node.policies()
    with monit_over(node) as monit:
        monit.says(FAILS)
        assert f'"reason": "{NO_ESP}: this kernel cannot do ESP' in monit.log
        assert agent_pid(node) == agent


@pytest.mark.parametrize("file", BOTH)
def test_warning_is_seen_and_fails_nothing(node: Node, file: str) -> None:
    """A warning shows in ipsec-health alone: the service itself goes on, as BOSH needs it."""
    install(node, file)
    with monit_over(node) as monit:
        running(node, monit)

        configure(node, days=11)
        assert node.ask("reload").returncode == 0
        monit.says(FAILS, "ipsec-health")
        assert node.status()["state"] == "degraded"
        assert monit.summary("ipsec") in RUNNING
        assert "certificate-expires" in (monit.log if file == OLD else monit.ask("status"))

        configure(node)
        assert node.ask("reload").returncode == 0
        monit.says(RUNNING, "ipsec-health")


def test_start_is_the_same_for_all(node: Node) -> None:
    """pre-start and then monit's start: the second finds IPsec enforced and changes nothing."""
    install(node)

    assert control(node, "start").returncode == 0
    pids = agent_pid(node), node.charon_pid
    assert node.status()["healthy"]
    assert control(node, "start").returncode == 0
    assert (agent_pid(node), node.charon_pid) == pids

    assert control(node, "stop").returncode == 0
    # The agent gives its lock back a moment before its process ends.
    until(lambda: not any(map(alive, pids)), "both have ended", 5)
    assert control(node, "stop").returncode == 0


def test_drain_outlives_the_agent(node: Node) -> None:
    """It returns once the agent has ended; IPsec stays for the jobs, and a start adopts it."""
    install(node)
    vcap = node.directory / "vcap"
    (vcap / "sys/run/nfs").mkdir(parents=True)
    agent = node.directory / "monit/ipsec-agent"
    only_drain = f'"$@" $([ "$1" != drain ] || echo --vcap {vcap})'
    agent.write_text(agent.read_text().replace('"$@"', only_drain))
    assert control(node, "start").returncode == 0
    charon = node.charon_pid
    with subprocess.Popen(["sleep", "300"]) as job, contextlib.ExitStack() as stack:
        stack.callback(job.kill)
        (vcap / "sys/run/nfs/nfs.pid").write_text(f"{job.pid}\n")
        assert control(node, "drain").returncode == 0
        assert (agent_pid(node), alive(charon)) == (0, True)
        assert node.ask("status").stderr.startswith("ipsec-agent: IPsec is draining: it")

        assert control(node, "start").returncode == 0
        assert node.charon_pid == charon
        status = node.status()
        assert status.get("drain", status) is None

        assert control(node, "drain").returncode == 0
        job.kill()
    until(lambda: not alive(charon), "charon has ended", 20)
    assert (agent_pid(node), node.policies()) == (0, [])


def test_start_says_why_not(node: Node) -> None:
    """Where the agent refuses its config, start fails at once with the agent's own words."""
    install(node)
    node.config.write_text(node.config.read_text().replace("10.9.0.0/24", "10.9.0.0/33"))

    done = control(node, "start")

    assert done.returncode == 1
    assert done.stderr.startswith(f"ipsec-agent-ctl: the agent has ended: {node.config}:")
    assert "'10.9.0.0/33' is not a subnet; write " in done.stderr
    assert agent_pid(node) == 0


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSTOP])
def test_stop_without_help(node: Node, number: signal.Signals) -> None:
    """stop ends charon cleanly even where the agent was killed, or hangs."""
    install(node)
    assert control(node, "start").returncode == 0
    agent, charon = agent_pid(node), node.charon_pid

    os.kill(agent, number)
    assert control(node, "stop").returncode == 0

    # Locks and memory go first, so for a moment the kernel still lists what has ended.
    until(lambda: not any(map(alive, (agent, charon))), "both have ended", 1)
    assert node.policies() == []


@pytest.mark.parametrize("words", [(), ("begin",), ("start", "run_dir=run"), ("stop", "x=1")])
def test_misuse(words: tuple[str, ...]) -> None:
    """A verb or an argument that is not understood is refused, with what to write."""
    done = subprocess.run(
        [SHIPPED / "ipsec-agent-ctl", *words], check=False, capture_output=True, text=True
    )
    assert done.returncode == 2
    assert "start|stop|drain|replace" in done.stderr
