"""A VM whose kernel has no ESP: it enforces, says so as critical, and is never healthy.

These need a kernel without ESP, as the test machines have it; what one that has ESP does is in
tests/lab/test_preflight.py.
"""

import resource
import subprocess
import time

import pytest

from tests.charon.nodes import AGENT, DEADLINE, NO_ESP, Node, as_nobody, complaints, until
from tests.charon.shared_manifest import EXPECTED, configure
from tests.charon.test_followers import started, told
from tests.lab.guest import has_esp

pytestmark = [
    pytest.mark.charon,
    pytest.mark.skipif(has_esp(), reason="this kernel has ESP"),
]


def check(node: Node, *around: str) -> subprocess.CompletedProcess[str]:
    """Run `check --machine` in the VM."""
    return subprocess.run(
        node.command(*around, *AGENT, "check", str(node.config), "--machine"),
        check=False,
        capture_output=True,
        text=True,
        timeout=DEADLINE,
    )


def test_it_enforces_and_is_never_healthy(node: Node) -> None:
    """It counts as started, so that what waits for it goes on and nothing leaves in clear; the
    status, its exit code and the line for systemd say what the kernel lacks."""
    with started(node) as manager:
        told(manager, "READY=1")
        (line, *_) = told(manager, "STATUS=", NO_ESP)

    assert node.policies() == EXPECTED
    assert line.startswith(f"STATUS=degraded: {NO_ESP}: this kernel cannot do ESP over IPv4")
    seen = []
    end = time.monotonic() + 3
    while time.monotonic() < end:
        seen.append(node.status())
        time.sleep(0.05)
    assert not any(one["healthy"] for one in seen)
    assert all(one["guard"]["state"] == "up" for one in seen)
    found = [one for one in seen[-1]["problems"] if one["code"] == NO_ESP]
    assert {one["severity"] for one in found} == {"critical"}
    assert any("CONFIG_INET_ESP" in one["message"] for one in found)
    assert all(one["hint"] for one in found)
    assert node.ask("status").returncode == 1


def test_clear_vm_needs_none(node: Node) -> None:
    """A VM in no_ipsec_subnets is healthy without ESP, and changes with the config."""
    configure(node, no_ipsec=["10.9.0.1/32"])
    node.up()
    assert node.status()["healthy"]

    configure(node)
    assert node.ask("reload").returncode == 0

    until(lambda: complaints(node.status()) == {NO_ESP}, "it needs ESP now")


def test_check_machine(node: Node) -> None:
    """It refuses, and names the option; it is quick, and leaves nothing behind."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = check(node)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    # Nothing that it does waits; the clock would tell how busy this machine is.
    took = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime

    assert done.returncode == 1
    assert "is valid" in done.stdout, "the config itself is"
    assert "error: this kernel cannot do ESP over IPv4: the kernel " in done.stderr
    assert "was built without CONFIG_INET_ESP" in done.stderr
    assert "ipsec-agent: this VM is not ready: " in done.stderr
    assert "  guard: its table loads\n" in done.stdout, "what it can is told as well"
    assert "Traceback" not in done.stderr
    assert took < 2.5
    assert node.policies() == []
    rules = subprocess.run(
        node.command("nft", "list", "ruleset"), check=True, capture_output=True, text=True
    )
    assert rules.stdout == ""
    assert list(node.directory.glob("*")) == [node.config]


def test_check_machine_of_a_vm_in_neither_list(node: Node) -> None:
    """Told before the agent would refuse it."""
    configure(node, ipsec=["10.8.0.0/24"])

    done = check(node)

    assert done.returncode == 1
    assert "10.9.0.1 is in neither ipsec_subnets nor no_ipsec_subnets" in done.stderr


def test_check_machine_of_a_clear_vm(node: Node) -> None:
    """What it does not need is not asked of its kernel."""
    configure(node, no_ipsec=["10.9.0.1/32"])

    done = check(node)

    assert done.returncode == 0, done.stderr
    assert "this VM is ready\n" in done.stdout
    assert "ESP: not needed" in done.stdout
    assert "guard: its table loads" in done.stdout
    assert "lock-out: the config cuts off nothing" in done.stdout
    assert "charon: /usr/" in done.stdout


def test_check_machine_says_all_at_once(node: Node) -> None:
    """charon and nft are missed in the same run; so is a directory that is not only root's."""
    (node.directory / "state").mkdir(mode=0o777, exist_ok=True)
    (node.directory / "state").chmod(0o777)
    configure(
        node,
        no_ipsec=["10.9.0.1/32"],
        agent=node.agent_section(charon={"program": "/nowhere/charon"}),
    )
    hide = 'mount --bind /dev/null "$(readlink -f "$(command -v nft)")"; exec "$@"'

    done = check(node, "sh", "-c", hide, "sh")

    assert done.returncode == 1
    assert "error: charon is not at /nowhere/charon" in done.stderr
    assert "error: the program nft is not installed" in done.stderr
    assert f"{node.directory / 'state'} can be written by others than root" in done.stderr
    assert "3 errors" in done.stderr


def test_check_machine_of_a_config_that_locks_out(node: Node) -> None:
    """It is refused before the VM is closed, with the line to add."""
    configure(node, ipsec=["0.0.0.0/0"], no_ipsec=[])

    done = check(node)

    assert done.returncode == 1
    assert "error: 169.254.169.254 (IaaS metadata service) is inside" in done.stderr
    assert "add the line `- 169.254.169.254/32` below no_ipsec_subnets" in done.stderr


def test_check_machine_without_root(node: Node) -> None:
    """One sentence says what it needs."""
    done = as_nobody("check", str(node.config), "--machine")

    assert done.returncode == 1
    assert "check --machine needs root" in done.stderr
    assert "Traceback" not in done.stderr
