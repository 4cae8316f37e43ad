"""What harms a VM is mended by the agent, in time; real charon, real policies, real nftables."""

import contextlib
import json
import os
import re
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.problems.damping import PATIENCE
from tests.charon.nodes import FIGURES, PYTHON, SCALE, Node, as_good_as_can_be, ip, network, until
from tests.charon.shared_manifest import EXPECTED, WITHOUT_SHUNT, configure
from tests.charon.starve import starved
from tests.charon.wedge import wedge

pytestmark = pytest.mark.charon

BY_EVENT, RESTARTED, CONTINUED, REPLACED = 0.5, 1.5, 3.0, 25.0
"""Seconds: what an event tells of, a charon that was killed, that was stopped by a signal, and that
hangs: two deadlines of 5 s, and the next pass finds it."""

LIST = ("nft", "-j", "list", "table", "inet", "ipsec_agent")


@pytest.fixture
def node(tmp_path: Path) -> Iterator[Node]:
    """A VM whose agent runs and is content."""
    with network(tmp_path, 1, "re") as nodes:
        configure(nodes[0])
        nodes[0].up()
        yield nodes[0]


def run(node: Node, *command: str, text: str | None = None) -> str:
    """Run a program in the VM; the test fails where it does."""
    return subprocess.run(
        node.command(*command), check=True, capture_output=True, text=True, input=text, timeout=30
    ).stdout


def rules(node: Node) -> list[dict[str, object]]:
    """The guard's rules as the kernel has them, without counters; empty without a table."""
    done = subprocess.run(
        node.command(*LIST), check=False, capture_output=True, text=True, timeout=30
    )
    if done.returncode:
        return []
    found = [item["rule"] for item in json.loads(done.stdout)["nftables"] if "rule" in item]
    return [
        {
            "chain": rule["chain"],
            "expr": [{} if "counter" in part else part for part in rule["expr"]],
        }
        for rule in found
    ]


def outside(node: Node) -> str:
    """The addresses that the guard does not judge; "" without a table."""
    done = subprocess.run(
        node.command("nft", "list", "set", "inet", "ipsec_agent", "outside4"),
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout


def healed(limit: float, whole: Callable[[], bool], began: float) -> float:
    """Seconds from the harm until all is whole again; the test fails where that is too long."""
    end = time.monotonic() + max(10 * limit, 5) * SCALE
    while not whole():
        assert time.monotonic() < end, f"not healed within {10 * limit} s"
        time.sleep(0.01)
    took = time.monotonic() - began
    what = os.environ["PYTEST_CURRENT_TEST"].partition("::")[2].partition(" (")[0]
    FIGURES.append(f"{what:52} {took:6.2f} of {limit:g} s")
    assert took <= limit * SCALE, f"healed after {took:.2f} s, not within {limit} s"
    return took


@pytest.mark.parametrize(
    "harm",
    [
        ("ip", "xfrm", "policy", "flush"),
        *(
            ("ip", "xfrm", "policy", "delete", *words)
            for words in (
                ("src", "10.9.0.1/32", "dst", "10.9.0.0/24", "dir", "out"),
                ("src", "10.9.0.0/24", "dst", "10.9.0.1/32", "dir", "in"),
                ("src", "0.0.0.0/0", "dst", "10.9.0.3/32", "dir", "out"),
            )
        ),
        (
            "ip",
            "xfrm",
            "policy",
            "update",
            "src",
            "10.9.0.1/32",
            "dst",
            "10.9.0.0/24",
            "dir",
            "out",
        ),
    ],
    ids=["flushed", "trap out", "trap in", "shunt", "trap blunted"],
)
def test_policies(node: Node, harm: tuple[str, ...]) -> None:
    """Policies that somebody deleted or changed are back by event, as they were."""
    before = ip("xfrm", "policy", netns=node.name).count("proto esp")
    began = time.monotonic()
    run(node, *harm)

    healed(
        BY_EVENT,
        lambda: (
            node.policies() == EXPECTED
            and ip("xfrm", "policy", netns=node.name).count("proto esp") == before
        ),
        began,
    )
    node.settled()


@pytest.mark.parametrize(
    "harm",
    [
        ("flush", "ruleset"),
        ("delete", "table", "inet", "ipsec_agent"),
        ("flush", "chain", "inet", "ipsec_agent", "in4"),
        ("add", "element", "inet", "ipsec_agent", "outside4", "{ 10.9.0.2 }"),
    ],
    ids=["ruleset flushed", "deleted", "chain flushed", "peer exempted"],
)
def test_guard(node: Node, harm: tuple[str, ...]) -> None:
    """A guard that is gone or altered is back by event, as it was."""
    before, exempt = rules(node), outside(node)
    assert len(before) > 10
    began = time.monotonic()
    run(node, "nft", *harm)

    healed(BY_EVENT, lambda: (rules(node), outside(node)) == (before, exempt), began)
    node.settled()


def test_guard_made_dormant(node: Node) -> None:
    """A table that somebody has put to sleep judges nothing, and nft 1.0.6 cannot list it whole."""
    began = time.monotonic()
    run(node, "nft", "add table inet ipsec_agent { flags dormant; }")
    healed(
        BY_EVENT,
        lambda: "dormant" not in run(node, "nft", "list", "table", "inet", "ipsec_agent"),
        began,
    )
    node.settled()


def test_connections_unloaded(node: Node) -> None:
    """`swanctl --load-all` by hand unloads what is ours; it is loaded again by event."""
    conf = node.directory / "swanctl.conf"
    conf.write_text("connections { }\n")
    uri = f"unix://{node.run_dir}/charon.vici"
    began = time.monotonic()
    run(node, "swanctl", "--load-all", "--noprompt", "--uri", uri, "--file", str(conf))

    healed(BY_EVENT + (time.monotonic() - began), lambda: node.policies() == EXPECTED, began)
    assert node.settled()["policies"]["missing"] == []


def test_charon_killed(node: Node) -> None:
    """It is back with its traps; the policies that it left were there all the time."""
    old = node.charon_pid
    began = time.monotonic()
    os.kill(old, signal.SIGKILL)
    assert node.policies() == EXPECTED

    healed(RESTARTED, lambda: node.charon_pid != old and loaded(node) >= 3, began)
    assert node.policies() == EXPECTED
    new = node.charon_pid
    # The pass that heals may not have ended yet, so that the status is of the one before.
    until(lambda: node.settled()["charon"]["pid"] == new, "the status knows it")
    assert node.charon_pid == new


def loaded(node: Node) -> int:
    """How many connections charon has, 0 while it does not answer."""
    done = subprocess.run(
        ["swanctl", "--list-conns", "--raw", "--uri", f"unix://{node.run_dir}/charon.vici"],
        check=False,
        capture_output=True,
        text=True,
        timeout=30,
    )
    return done.stdout.count("list-conn event")


def test_charon_stopped_by_a_signal(node: Node) -> None:
    """It is continued, and keeps its pid."""
    pid = node.charon_pid
    began = time.monotonic()
    os.kill(pid, signal.SIGSTOP)

    healed(CONTINUED, lambda: " (sleeping)" in state(pid) and loaded(node) >= 3, began)
    assert node.charon_pid == pid


def test_charon_wedged(node: Node) -> None:
    """A charon all of whose threads hang is replaced after two deadlines; its policies stay."""
    old = node.charon_pid
    held: list[socket.socket] = []
    with node.held():
        wedge(node, "10.9.0.1", "10.9.0.250", held)
    began = time.monotonic()
    try:
        assert node.policies() == EXPECTED
        healed(REPLACED, lambda: node.charon_pid != old and loaded(node) >= 3, began)
    finally:
        for channel in held:
            channel.close()
    assert node.policies() == EXPECTED


def unresponsive(node: Node) -> str:
    """What is said of a charon that does not answer; "" where nothing is."""
    problems = node.status().get("problems", [])
    return next((one["message"] for one in problems if one["code"] == "charon-unresponsive"), "")


def ask_charon(node: Node) -> None:
    """Have the agent look, and so ask charon."""
    ip("addr", "add", "127.0.0.9/8", "dev", "lo", netns=node.name)


def test_charon_starved(node: Node) -> None:
    """A charon that gets no CPU lets more than two deadlines pass, and is left alone."""
    pid = node.charon_pid
    with node.held():
        stack = contextlib.ExitStack()
        stack.enter_context(starved(pid))
    with stack:
        ask_charon(node)
        said: list[str] = []

        def busy() -> bool:
            said.append(unresponsive(node))
            return re.search(r"busy: ([3-9]|\d\d) requests timed out", said[-1]) is not None

        # The agent counts time in which it had a CPU itself, and all but one are taken here.
        until(busy, lambda: f"it is said: {said}", 90)

    assert node.settled()["charon"]["pid"] == pid
    assert unresponsive(node) == ""


def test_agent_sleeps_while_a_question_is_open(node: Node) -> None:
    """The agent does not take its own sleep for charon's silence: the answer has arrived."""
    pid = node.charon_pid
    agent = node.agent
    assert agent is not None
    with node.held():
        stack = contextlib.ExitStack()
        stack.enter_context(starved(pid))
    with stack:
        ask_charon(node)
        time.sleep(2)
        agent.send_signal(signal.SIGSTOP)
    try:
        time.sleep(6)
    finally:
        agent.send_signal(signal.SIGCONT)

    until(lambda: node.status()["charon"]["responsive"], "charon answers")
    assert node.settled()["charon"]["pid"] == pid
    assert "charon-unresponsive" not in node.log
    assert "did not answer" not in node.log


def state(pid: int) -> str:
    """The line of /proc/PID/status that tells whether it is stopped."""
    text = Path(f"/proc/{pid}/status").read_text()
    return next(line for line in text.splitlines() if line.startswith("State"))


def test_socket_removed(node: Node) -> None:
    """A charon that nobody can reach any more is replaced; its policies stay meanwhile."""
    old = node.charon_pid
    time.sleep(3)  # one that has only begun may be without it
    began = time.monotonic()
    (node.run_dir / "charon.vici").unlink()

    healed(5.0, lambda: node.charon_pid != old and loaded(node) >= 3, began)
    assert node.policies() == EXPECTED


def test_address_changed(node: Node) -> None:
    """The traps follow the VM's address."""
    ip("addr", "add", "10.9.0.77/24", "dev", "eth0", netns=node.name)
    began = time.monotonic()
    healed(BY_EVENT, lambda: "10.9.0.77/32 10.9.0.0/24 out" in node.policies(), began)

    began = time.monotonic()
    ip("addr", "del", "10.9.0.77/24", "dev", "eth0", netns=node.name)
    healed(BY_EVENT, lambda: node.policies() == EXPECTED, began)


def test_link_down_and_up(node: Node) -> None:
    """A link that was away changes nothing once it is back."""
    ip("link", "set", "eth0", "down", netns=node.name)
    time.sleep(0.3)
    ip("link", "set", "eth0", "up", netns=node.name)

    began = time.monotonic()
    healed(BY_EVENT, lambda: node.policies() == EXPECTED, began)
    node.settled()
    # The problem is kept for some seconds, as a link may flap; no tick has to tell that it is over.
    assert time.monotonic() - began < PATIENCE["link-down"].kept + 2 * SCALE


def test_two_programs_that_fight(node: Node) -> None:
    """Repairs go on, but slower and slower, and the status says why."""
    end = time.monotonic() + 8
    flushes = 0
    while time.monotonic() < end:
        if node.policies():
            ip("xfrm", "policy", "flush", netns=node.name)
            flushes += 1
        time.sleep(0.02)

    codes = {problem["code"] for problem in node.status()["problems"]}
    assert 8 <= flushes <= 15
    assert "repair-paused" in codes
    assert not node.content
    healed(10, lambda: node.policies() == EXPECTED, time.monotonic())


def test_guard_down_and_up(node: Node) -> None:
    """`guard down` goes through the agent, lasts, and is a problem; `guard up` ends it."""
    assert rules(node)
    assert node.ask("guard down", "--config", str(node.config)).returncode == 0
    assert rules(node) == []
    ip("xfrm", "policy", "flush", netns=node.name)
    time.sleep(1)
    lowered = node.status()

    assert rules(node) == [], "a pass does not put it back"
    # Without the guard a broadcast must stay in the trap.
    assert node.policies() == [line for line in EXPECTED if "10.9.0.255" not in line]
    assert "guard-lowered" in {problem["code"] for problem in lowered["problems"]}
    assert not as_good_as_can_be(lowered)
    socket = node.run_dir / "control.sock"
    command = f"run `ipsec-agent guard up --config {node.config} --socket {socket}`"
    assert command in node.ask("status").stdout

    assert node.ask("guard up", "--config", str(node.config)).returncode == 0
    assert rules(node)
    node.settled()


def test_a_restart_ends_guard_down(node: Node) -> None:
    """The next agent puts the guard up, whoever took it down."""
    assert node.ask("guard down", "--config", str(node.config)).returncode == 0
    node.end_agent()
    assert rules(node) == []

    node.up()

    assert rules(node)


def test_stop_leaves_the_guard(node: Node) -> None:
    """After `stop` charon and its policies are gone, and the guard stands."""
    before = rules(node)

    assert node.ask("stop").returncode == 0

    assert node.policies() == []
    assert rules(node) == before
    assert (node.directory / "state" / "guard.nft").read_text().startswith("# Made by ipsec-agent")


def test_guard_none(node: Node) -> None:
    """`agent.guard: none` takes the table away, and the status does not call that healthy."""
    configure(node, agent=node.agent_section(guard="none"))
    assert node.ask("reload").returncode == 0
    began = time.monotonic()

    healed(BY_EVENT + 0.5, lambda: rules(node) == [], began)
    found = until(
        lambda: [one for one in node.status()["problems"] if one["code"] == "guard-none"],
        "it is said",
    )
    assert found[0]["severity"] == "warning"
    assert not node.content
    assert not (node.directory / "state" / "guard.nft").exists(), "nor at the next boot"


def test_a_changed_config_swaps_the_guard(node: Node) -> None:
    """The table follows the config."""
    before = rules(node)
    configure(node, no_ipsec=[])
    listed = run(node, *LIST)
    assert node.ask("reload").returncode == 0

    healed(1.0, lambda: node.policies() == WITHOUT_SHUNT, time.monotonic())
    assert run(node, *LIST) != listed
    assert rules(node) == before, "only the sets differ"


def test_mtu_is_fixed(node: Node) -> None:
    """A container's link that is too large is named, and lowered once the config says so."""
    ip("link", "add", "c0", "mtu", "1500", "type", "veth", "peer", "c1", netns=node.name)
    found = until(
        lambda: [one for one in node.status()["problems"] if one["code"] == "mtu-too-large"],
        "it is said",
        30,
    )
    assert "ip link set dev c0 mtu 1466" in found[0]["hint"] + found[-1]["hint"]

    configure(node, agent=node.agent_section(mtu="fix"))
    assert node.ask("reload").returncode == 0

    until(lambda: ip("link", "show", "c0", netns=node.name).count("mtu 1466"), "it is lowered")
    assert ip("link", "show", "eth0", netns=node.name).count("mtu 1500")
    node.settled()


BROADCAST = """
import socket
with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as out:
    out.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
    for _ in range(3):
        try:
            out.sendto(b"x", ("10.9.0.255", 9))
        except PermissionError:
            pass
"""


@pytest.mark.parametrize("guard", ["enforce", "none"])
def test_a_broadcast_starts_no_ike(node: Node, guard: str) -> None:
    """The guard drops it; where there is no guard the trap does, which asks for an SA in vain."""
    configure(node, agent=node.agent_section(guard=guard, interval=1))
    assert node.ask("reload").returncode == 0
    guarded = guard == "enforce"
    until(lambda: bool(rules(node)) == guarded and node.content == guarded, "applied")
    before = node.status()["guard"]["dropped_out"]

    run(node, PYTHON, "-c", BROADCAST)

    time.sleep(0.3)
    waiting = ip("xfrm", "state", netns=node.name)
    assert ("dst 10.9.0.255" in waiting) is not guarded
    node.send("10.9.0.2")  # wakes the loop
    if guarded:
        # The copy for this VM's own ears passes the same chain (ip_mc_output).
        until(lambda: node.status()["guard"]["dropped_out"] >= before + 3, "three are dropped", 30)
