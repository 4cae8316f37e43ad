"""The agent with a real charon and the real kernel's policies, on namespaces."""

import contextlib
import functools
import json
import os
import re
import signal
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.certificates import make_ca, make_leaf, rsa_key
from tests.charon.nodes import (
    AGENT,
    NO_ESP,
    Node,
    as_nobody,
    complaints,
    complaints_of_charon,
    ip,
    listens,
    network,
    until,
)
from tests.charon.shared_manifest import EXPECTED, WITHOUT_SHUNT, configure
from tests.lab.guest import has_esp
from tests.lab.namespaces import inside

pytestmark = pytest.mark.charon


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two configured VMs."""
    with network(tmp_path, 2) as nodes:
        for each in nodes:
            configure(each)
        yield nodes[0], nodes[1]


def test_policies_in_the_kernel(node: Node) -> None:
    """The agent runs once every trap and shunt is in the kernel, and says so."""
    status = node.up()

    assert node.policies() == EXPECTED
    assert status["policies"] == {"desired": 8, "installed": 8, "missing": [], "foreign": []}
    assert [item["name"] for item in status["connections"]] == [
        "no-ipsec-10.9.0.3/32",
        "no-ipsec-broadcast",
        "ipsec-10.9.0.0/24",
    ]
    assert node.ask("status").returncode == (0 if has_esp() else 1)


def test_no_warning_in_the_log_of_charon(node: Node) -> None:
    """charon starts without a word about plugins that fail or options it does not know."""
    node.up()

    assert "loaded plugins: charon" in node.charon_log
    assert complaints_of_charon(node.charon_log) == []


def test_the_key_is_in_no_file(node: Node) -> None:
    """The private key goes over VICI only; nothing that the agent writes holds it."""
    node.up()

    key = make_leaf(make_ca()).key_pem.splitlines()[3].encode()
    written = [path for path in node.directory.rglob("*") if path.is_file()]
    assert len(written) > 5
    assert [path for path in written if key in path.read_bytes()] == [node.config]


@contextlib.contextmanager
def monitored(node: Node) -> Iterator[Callable[[], str]]:
    """What `ip xfrm monitor` has shown so far, from now on."""
    path = node.directory / "monitor"
    with path.open("w") as shown:
        monitor = subprocess.Popen(node.command("ip", "xfrm", "monitor"), stdout=shown)
    try:
        until(lambda: hears_xfrm(node, monitor.pid), "it listens")
        yield path.read_text
    finally:
        monitor.kill()
        monitor.wait(10)


def hears_xfrm(node: Node, pid: int) -> bool:
    """Whether a program is told of changes of XFRM (netlink(7): protocol 6, and its groups)."""
    with inside(node.name):
        sockets = Path("/proc/thread-self/net/netlink").read_text().splitlines()[1:]
    return any(
        (protocol, int(owner)) == ("6", pid) and int(groups, 16)
        for _, protocol, owner, groups, *_ in map(str.split, sockets)
    )


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT, signal.SIGKILL])
def test_next_agent_adopts(node: Node, number: signal.Signals) -> None:
    """After the agent ends, charon stays; the next agent adopts it and touches no policy."""
    before = node.up()["charon"]
    with monitored(node) as seen:
        code = node.end_agent(number)
        assert node.policies() == EXPECTED

        after = node.up()["charon"]
        time.sleep(0.3)

    assert code == (0 if number is not signal.SIGKILL else -9)
    assert (after["pid"], after["started"]) == (before["pid"], before["started"])
    assert seen() == ""


def test_monitor_can_convict(node: Node) -> None:
    """The silence above means something: the monitor does see a policy that changes."""
    node.up()
    with monitored(node) as seen:
        ip("xfrm", "policy", "flush", netns=node.name)
        until(lambda: node.policies() == EXPECTED, "policies are back")
        until(lambda: "Flushed policy" in seen(), "it is seen")


def test_lost_memory_costs_one_load(node: Node) -> None:
    """Without the fingerprints each connection is loaded once more, and then no more."""
    node.up()
    node.end_agent()
    (node.run_dir / "loaded.json").unlink()
    loads = node.log.count("load ipsec-10.9.0.0/24")

    node.up()
    time.sleep(0.5)
    node.ask("reload")
    node.settled()

    assert node.log.count("load ipsec-10.9.0.0/24") == loads + 1
    assert node.policies() == EXPECTED


def test_stop_ends_charon_and_agent(node: Node) -> None:
    """`stop` ends charon cleanly and then the agent; `status` is 3 afterwards."""
    node.up()
    pid = node.charon_pid

    done = node.ask("stop")

    assert (done.returncode, done.stdout) == (0, "charon has stopped, and the agent stops\n")
    assert node.agent is not None
    assert node.agent.wait(20) == 0
    assert not Path(f"/proc/{pid}").exists()
    status = node.ask("status", "--json")
    assert status.returncode == 3
    assert json.loads(status.stdout)["state"] == "stopped"


def test_charon_killed(node: Node) -> None:
    """A killed charon is back with its traps; the policies never left."""
    node.up()
    before = node.charon_pid

    os.kill(before, signal.SIGKILL)

    until(
        lambda: (node.status().get("charon") or {}).get("pid") not in {None, before}, "a new charon"
    )
    assert node.settled()["policies"]["missing"] == []
    assert node.policies() == EXPECTED


def test_reload(node: Node) -> None:
    """A changed config is in force when `reload` ends; a refused one changes nothing."""
    node.up()
    configure(node, no_ipsec=[])
    assert node.ask("reload").returncode == 0
    assert node.policies() == WITHOUT_SHUNT

    configure(node, no_ipsec=["10.9.0.300"])
    refused = node.ask("reload")

    assert refused.returncode == 1
    assert "no_ipsec_subnets[0]: '10.9.0.300' is not a subnet" in refused.stderr
    assert node.policies() == WITHOUT_SHUNT
    until(lambda: "reload-refused" in complaints(node.status()), "the status tells of it")
    assert node.status()["policies"]["desired"] == 5

    configure(node, no_ipsec=[])
    assert node.ask("reload").returncode == 0
    assert node.settled()["policies"]["desired"] == 5


def test_events_outlive_the_agent(node: Node) -> None:
    """A reload, a repair and the starts of two agents are told by the second one."""
    node.up()
    assert node.ask("status --wait running --timeout 20").returncode == 0
    assert node.ask("reload").returncode == 0
    os.kill(node.charon_pid, signal.SIGKILL)
    until(lambda: "repair" in {one["kind"] for one in node.status().get("events", ())}, "repaired")
    assert node.end_agent(signal.SIGTERM) == 0

    node.up()

    told = node.ask("status --events").stdout
    assert re.search(r" reload +the config was reloaded; nothing was to do$", told, re.MULTILINE)
    assert re.search(r" repair +repaired: .*start charon", told)
    assert re.search(r" start +the agent has started \(2 times since", told)


def test_reload_tells_of_warnings(node: Node) -> None:
    """Whoever reloads sees what `check` would say, and not only the agent's log."""
    node.up()
    node.config.write_text(node.config.read_text().replace("no_ipsec_subnets", "no_ipsec_subnet"))

    done = node.ask("reload")

    assert done.returncode == 0
    assert done.stdout == "reloaded\n"
    assert "unknown key; did you mean no_ipsec_subnets?" in done.stderr

    configure(node, agent=node.agent_section(state_dir=str(node.directory / "elsewhere")))
    for _ in range(2):
        assert f"agent.state_dir is {node.directory}/elsewhere from" in node.ask("reload").stderr
    assert not (node.directory / "elsewhere").exists()


def test_reload_into_neither_list(node: Node) -> None:
    """A config that says nothing of this VM is refused, and the old one stays in force."""
    before = node.up()["connections"]
    configure(node, ipsec=["10.8.0.0/24"])

    refused = node.ask("reload")

    assert refused.returncode == 1
    assert "10.9.0.1 is in neither ipsec_subnets nor no_ipsec_subnets" in refused.stderr
    assert "reload-refused" in complaints(node.status())
    assert node.status()["connections"] == before
    assert node.policies() == EXPECTED


def told(node: Node, code: str) -> dict[str, str]:
    """The problem of this code, once it is shown."""

    def found() -> dict[str, str] | None:
        shown = node.status().get("problems", ())
        return next((one for one in shown if one["code"] == code), None)

    problem: dict[str, str] = until(found, code)
    return problem


def test_a_config_that_waits(node: Node) -> None:
    """A changed file is told without anybody asking for a reload, and is in force only then."""
    configure(node, agent=node.agent_section(interval=1))
    node.up()
    configure(node, no_ipsec=[], agent=node.agent_section(interval=1))

    assert told(node, "config-changed")["severity"] == "info"
    assert node.policies() == EXPECTED

    assert node.ask("reload").returncode == 0
    until(lambda: node.policies() == WITHOUT_SHUNT, "the shunt has gone")
    until(
        lambda: "config-changed" not in {one["code"] for one in node.status()["problems"]},
        "nothing waits any more",
    )


def test_sighup_with_a_broken_config(node: Node) -> None:
    """Nobody is there to be answered: log and status say which line is wrong."""
    node.up()
    configure(node, no_ipsec=["10.9.0.300"])
    assert node.agent is not None

    node.agent.send_signal(signal.SIGHUP)

    problem = told(node, "reload-refused")
    assert "no_ipsec_subnets[0]: '10.9.0.300' is not a subnet" in problem["message"]
    (line,) = [json.loads(one) for one in node.log.splitlines() if "reload refused" in one]
    assert line["level"] == "error"
    assert node.policies() == EXPECTED


def test_reload_after_a_rotation(node: Node) -> None:
    """charon then writes to the new file; nothing else of it changes."""
    node.up()
    log, rotated = node.directory / "charon.log", node.directory / "charon.log.1"
    before = node.charon_pid
    log.rename(rotated)

    assert node.ask("reload").returncode == 0
    until(log.exists, "charon opens its log again")
    node.settled()

    assert node.charon_pid == before
    assert node.policies() == EXPECTED
    node.ask("stop")
    until(lambda: "SIGTERM" in log.read_text(), "charon writes of its end")
    assert "SIGTERM" not in rotated.read_text()


def test_sighup_reloads(node: Node) -> None:
    """SIGHUP does what `reload` does."""
    node.up()
    configure(node, no_ipsec=[])
    assert node.agent is not None

    node.agent.send_signal(signal.SIGHUP)

    until(lambda: node.policies() == WITHOUT_SHUNT, "the shunt has gone")


def trapped(node: Node, prefix: int) -> set[str]:
    """The own addresses that have both policies of their trap."""
    found = node.policies()
    out = {line.split("/")[0] for line in found if line.endswith(f"/{prefix} out")}
    return {own for own in out if any(f" {own}/" in line and line[-3:] == " in" for line in found)}


@pytest.mark.parametrize(
    ("version", "subnet", "first", "second"),
    [
        (4, "10.9.0.0/24", "10.9.0.1/24", "10.9.0.77/32"),
        (6, "fd09::/64", "fd09::1/64", "fd09::b/64"),
    ],
)
def test_addresses_come_and_go(
    tmp_path: Path, version: int, subnet: str, first: str, second: str
) -> None:
    """Whichever goes, and whichever the kernel names first, the trap of the other stays."""
    nodad = ("nodad",) if version == 6 else ()
    own, other = first.partition("/")[0], second.partition("/")[0]
    prefix = int(subnet.partition("/")[2])
    with network(tmp_path, 1, version=version) as (node,):
        configure(node, ipsec=[subnet], no_ipsec=[])
        node.up()
        for verb, address, wanted in (
            ("add", second, {own, other}),
            ("del", second, {own}),
            ("add", second, {own, other}),
            ("del", first, {other}),
            ("add", first, {own, other}),
            ("del", second, {own}),
        ):
            ip("addr", verb, address, "dev", "eth0", *nodad, netns=node.name)
            until(
                functools.partial(lambda them: trapped(node, prefix) == them, wanted),
                f"{verb} {address}: {wanted}, not {trapped(node, prefix)}: {node.log[-1500:]}",
                5,
            )
        assert node.settled()["policies"]["missing"] == []
        assert "step failed" not in node.log


def test_uninstalled_by_hand(node: Node) -> None:
    """`swanctl --uninstall` takes a trap out of charon, too; it is back, and nothing has failed."""
    node.up()
    child = "ipsec-10.9.0.0/24-10.9.0.1"
    done = subprocess.run(
        ["swanctl", "--uninstall", "--child", child, "--uri", f"unix://{node.run_dir}/charon.vici"],
        check=False,
        capture_output=True,
        text=True,
        timeout=20,
    )
    assert done.returncode == 0, done.stderr

    until(lambda: node.policies() == EXPECTED, lambda: f"the trap is back: {node.log[-1500:]}", 5)
    assert "step failed" not in node.log


def test_second_agent(node: Node) -> None:
    """A second agent ends at once, and says who runs."""
    node.up()

    code, said = node.run_and_fail()

    assert code == 1
    assert "another ipsec-agent is already running (pid " in said
    assert "Traceback" not in said


def test_foreign_charon(node: Node) -> None:
    """A charon that somebody else started on our socket is left alone."""
    node.run_dir.mkdir()
    conf = node.directory / "foreign.conf"
    conf.write_text(
        "charon-systemd { load = nonce openssl kernel-netlink socket-default vici\n"
        f"plugins {{ vici {{ socket = unix://{node.run_dir}/charon.vici }} }} }}\n"
    )
    other = subprocess.Popen(
        node.command("/usr/sbin/charon-systemd"),
        env={"STRONGSWAN_CONF": str(conf), "PATH": os.environ["PATH"]},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        until(lambda: listens(node.run_dir / "charon.vici"), "the foreign charon")
        code, said = node.run_and_fail()
        assert other.poll() is None
    finally:
        other.terminate()
        other.wait(20)

    assert code == 1
    assert "another charon (pid " in said
    assert "hint: stop it" in said


def test_without_charon(node: Node) -> None:
    """Without charon the agent ends at once and says what to install."""
    configure(node, agent=node.agent_section(charon={"program": "/nowhere/charon"}))

    code, said = node.run_and_fail()

    assert (code, said) == (
        1,
        "ipsec-agent: charon is not at /nowhere/charon\n"
        f"  hint: correct agent.charon.program; {clear(node)}\n",
    )


def clear(node: Node) -> str:
    """What a start that is refused says while nothing holds packets back."""
    return (
        "no guard is loaded, so packets may travel in clear: `ipsec-agent guard up --closed"
        f" --config {node.config}` lets pass only IPsec and what it takes to repair this VM"
    )


def test_a_first_start_that_is_refused(node: Node) -> None:
    """It says that the VM is open and how to close it; where a guard holds, it says nothing."""
    good = node.config.read_text()
    node.config.write_text(good.replace("10.9.0.0/24", "10.9.0.0/33"))

    code, said = node.run_and_fail()

    assert code == 1
    assert said.endswith(f"  hint: nothing was changed; {clear(node)}\n")

    socket = ("--socket", str(node.run_dir / "control.sock"))
    subprocess.run(node.command(*AGENT, "guard", "up", "--closed", *socket), check=True, timeout=60)
    _, said = node.run_and_fail()
    assert said.endswith("  hint: nothing was changed\n")

    # Whatever bears its name is no guard by that.
    other = "delete table inet ipsec_agent; add table inet ipsec_agent"
    subprocess.run(node.command("nft", other), check=True, timeout=60)
    _, said = node.run_and_fail()
    assert "the guard is not as the agent makes it (`ipsec-agent guard status" in said

    node.config.write_text(good)
    node.up()
    assert node.status()["guard"]["state"] == "up"


HIDE_NFT = (
    "sh",
    "-c",
    'mount --bind /dev/null "$(readlink -f "$(command -v nft)")"; exec "$@"',
    "sh",
)
"""Runs a program that finds no nft; `ip netns exec` gives it mounts of its own (ip-netns(8))."""


def test_without_nftables(node: Node) -> None:
    """The agent says what to install; told to do without a guard, it encrypts, and complains."""
    code, said = node.run_and_fail(HIDE_NFT)
    assert code == 1
    assert said.startswith(
        "ipsec-agent: the program nft is not installed\n"
        "  hint: apt install nftables, or set agent.guard: none; no guard is loaded, so packets may"
        " travel in clear: once nftables is installed, `ipsec-agent guard up --closed"
        f" --config {node.config}` lets pass"
    )

    configure(node, agent=node.agent_section(guard="none"))
    node.start(around=HIDE_NFT)

    status = until(
        lambda: node.status() if node.status().get("state") == "degraded" else {},
        lambda: f"it runs: {node.log[-1500:]}",
    )
    assert status["policies"]["missing"] == []
    assert status["guard"]["state"] == "none"
    assert complaints(status) - {NO_ESP} == {"guard-none"}


def test_a_config_that_locks_out(node: Node) -> None:
    """It is refused at the start and by a reload, before anything is touched; --force insists."""
    line = "add the line `- 169.254.169.254/32` below no_ipsec_subnets"
    configure(node, ipsec=["0.0.0.0/0"], no_ipsec=[])
    code, said = node.run_and_fail()
    assert code == 1
    assert "the config would cut this VM off" in said
    assert line in said, said
    assert node.policies() == []
    assert not (node.directory / "state" / "guard.nft").exists()

    configure(node)
    node.up()
    configure(node, ipsec=["0.0.0.0/0"], no_ipsec=[])
    refused = node.ask("reload")
    assert refused.returncode == 1
    assert line in refused.stderr
    assert node.policies() == EXPECTED
    assert node.end_agent() == 0

    node.start("--force")
    until(
        lambda: "10.9.0.1/32 0.0.0.0/0 out" in node.policies(),
        lambda: f"forced: {node.log[-1500:]}",
    )


def test_without_root() -> None:
    """Without root the agent ends at once and says so."""
    # Not within pytest's own directory: whenever a pytest starts, it closes that to all but root.
    with tempfile.TemporaryDirectory() as place, network(Path(place), 1) as (node,):
        configure(node)
        for above in (Path(place), node.directory):
            above.chmod(0o755)
        node.config.chmod(0o644)
        for own in (node.run_dir, node.directory / "state"):
            own.mkdir()
            os.chown(own, 65534, 65534)
        done = as_nobody("run", "--config", str(node.config))

    assert done.returncode == 1
    assert "ipsec-agent run needs root" in done.stderr
    assert "Traceback" not in done.stderr


def test_prestart_timeout(node: Node) -> None:
    """A charon that never listens exceeds prestart_timeout: a clear error and a non-zero exit."""
    sleeper = node.directory / "charon"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o755)
    configure(node, prestart_timeout=2, agent=node.agent_section(charon={"program": str(sleeper)}))
    began = time.monotonic()

    code, said = node.run_and_fail()

    assert code == 1
    assert time.monotonic() - began < 8
    assert "IPsec did not start within prestart_timeout (2 s)" in said
    assert "Traceback" not in said


def test_charon_that_ends_at_once(node: Node) -> None:
    """A charon that cannot start is quoted."""
    broken = node.directory / "charon"
    broken.write_text("#!/bin/sh\necho 'no space left'; exit 3\n")
    broken.chmod(0o755)
    configure(node, prestart_timeout=2, agent=node.agent_section(charon={"program": str(broken)}))

    code, said = node.run_and_fail()

    assert code == 1
    assert "charon ended at once (exit code 3): no space left" in said


def test_outside_both_lists(node: Node) -> None:
    """An address in neither list keeps the agent from starting, with the remedy."""
    configure(node, ipsec=["10.77.0.0/16"], prestart_timeout=2)

    code, said = node.run_and_fail()

    assert code == 1
    assert "10.9.0.1 is in neither ipsec_subnets nor no_ipsec_subnets" in said


def test_refused_peer_is_explained(pair: tuple[Node, Node]) -> None:
    """A peer with another CA is refused, and the status quotes the line of charon that says so."""
    ours, theirs = pair
    stranger = make_ca("Strange CA", key=rsa_key(3072, 110))
    configure(theirs, leaf=make_leaf(stranger, "stranger"), cas=[stranger])
    ours.up()
    theirs.up()

    ours.send("10.9.0.2")

    problems = until(
        lambda: [p for p in ours.status()["problems"] if p["code"] == "peer-refuses-us"],
        "the refusal in the status",
    )
    # The line itself names nobody; it is that of an IKE_SA with this peer.
    assert "AUTHENTICATION_FAILED" in problems[0]["message"]
    assert problems[0]["message"].startswith("10.9.0.2 refuses this VM's certificate")
    assert "ca_certificates" in problems[0]["hint"]
    assert ours.ask("status").returncode == 1
