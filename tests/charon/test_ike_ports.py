"""Another program has a UDP port of IKE: it is named, and charon gets the port once it is free."""

import contextlib
import json
import subprocess
import time
from collections.abc import Iterator
from typing import Any

import pytest

from tests.charon.nodes import PYTHON, Node, network, until
from tests.charon.shared_manifest import EXPECTED, configure
from tests.charon.test_repair import healed

pytestmark = pytest.mark.charon

LIMIT = 3.0
"""Seconds until charon has a port that has become free: a glance each second, and its start."""

HOLD = """
import os, socket, sys, time
address, _, alone = sys.argv[1].partition("/")
os.setresuid(*[int(sys.argv[2])] * 3)
sockets = []
for port in map(int, sys.argv[3:]):
    one = socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)
    if alone:
        one.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    one.bind((address, port))
    sockets.append(one)
print("holds", flush=True)
time.sleep(600)
"""


@contextlib.contextmanager
def held(node: Node, address: str, *ports: int, user: int = 0) -> Iterator[int]:
    """Another program of the VM has the ports meanwhile; its pid. `::/alone` is IPv6 only."""
    words = (PYTHON, "-c", HOLD, address, str(user), *map(str, ports))
    with subprocess.Popen(node.command(*words), stdout=subprocess.PIPE, text=True) as program:
        try:
            assert program.stdout is not None
            assert program.stdout.readline() == "holds\n"
            yield program.pid
        finally:
            program.kill()


def problems(node: Node, code: str) -> list[dict[str, Any]]:
    """What the status says by that code."""
    return [one for one in node.status().get("problems", []) if one["code"] == code]


def taken(node: Node, pid: int, port: int) -> list[dict[str, Any]]:
    """What is said of a port that this program has."""
    says = f"UDP {port} is in use by pid {pid} (python"
    return [one for one in problems(node, "ike-port-taken") if one["message"].startswith(says)]


@pytest.mark.parametrize(
    ("address", "port"),
    [
        ("0.0.0.0", 500),
        ("10.9.0.1", 4500),
        ("::", 500),
        ("127.0.0.1", 500),
        ("::ffff:0.0.0.0", 500),
        ("::ffff:10.9.0.1", 4500),
    ],
)
def test_taken_before_charon_starts(node: Node, address: str, port: int) -> None:
    """The VM stays closed, and says who has the port; then charon is started again."""
    with held(node, address, port) as pid:
        node.start()
        (found,) = until(lambda: taken(node, pid, port), "it is said")
        assert found["severity"] == "critical"
        (line,) = [json.loads(one) for one in node.log.splitlines() if '"ike-port-taken"' in one]
        assert line["level"] == "critical"
        assert (line["message"], line["hint"]) == (found["message"], found["hint"])
        assert not node.content
        assert node.policies() == EXPECTED
        old = node.charon_pid

    healed(LIMIT, lambda: node.content, time.monotonic())
    assert node.charon_pid != old
    assert node.policies() == EXPECTED
    assert problems(node, "ike-port-closed") == []


TAKE = """
import os, socket, sys
os.setgroups([])
os.setresgid(65534, 65534, 65534)
os.setresuid(65534, 65534, 65534)
for address in sys.argv[1:]:
    for shared in (), (socket.SO_REUSEADDR,), (socket.SO_REUSEPORT,), (2, 15):
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        one = socket.socket(family, socket.SOCK_DGRAM)
        for option in shared:
            one.setsockopt(socket.SOL_SOCKET, option, 1)
        try:
            one.bind((address, 4500))
        except OSError as error:
            print(address, error.strerror)
        else:
            print(address, "taken")
"""


def attempts(node: Node, *addresses: str) -> list[str]:
    """What becomes of an ordinary user's attempts to take UDP 4500."""
    words = (PYTHON, "-c", TAKE, *addresses)
    return subprocess.check_output(node.command(*words), text=True, timeout=60).splitlines()


def test_a_user_cannot_share_the_port(node: Node) -> None:
    """While charon has it nobody else gets it; with the kernel's switch nobody but root may ask."""
    node.up()
    addresses = ("0.0.0.0", "10.9.0.1", "127.0.0.1", "::", "::1")

    assert attempts(node, *addresses) == [
        f"{address} Address already in use" for address in addresses for _ in range(4)
    ]

    switch = "/proc/sys/net/ipv4/ip_unprivileged_port_start"
    subprocess.run(node.command("sh", "-c", f"echo 4501 >{switch}"), check=True)
    assert attempts(node, *addresses) == [
        f"{address} Permission denied" for address in addresses for _ in range(4)
    ]


def test_taken_by_a_user(node: Node) -> None:
    """An ordinary user who takes the port while no charon runs is named; the VM stays closed."""
    with held(node, "0.0.0.0", 4500, user=65534) as pid:
        node.start()
        (found,) = until(lambda: taken(node, pid, 4500), "it is said")

    assert "of user 65534, so charon" in found["message"]
    assert "ip_unprivileged_port_start=4501" in found["hint"]
    healed(LIMIT, lambda: node.content, time.monotonic())


def test_a_family_that_is_not_used(node: Node) -> None:
    """charon opens no socket at all where both are taken; the port of IPv6 is not needed here."""
    with held(node, "::1", 500):
        with held(node, "0.0.0.0", 500) as pid:
            node.start()
            until(lambda: taken(node, pid, 500), "it is said")
            assert len(problems(node, "ike-port-taken")) == 1

        healed(LIMIT, lambda: node.content, time.monotonic())


def test_the_same_port_of_ipv6_only(node: Node) -> None:
    """What has it is not in charon's way: all is well beside it."""
    with held(node, "::/alone", 500, 4500):
        node.up()
        assert problems(node, "ike-port-taken") == []


def test_a_restarted_agent(node: Node) -> None:
    """An agent that finds such a charon later, its port free again, knows no better and tries."""
    with held(node, "0.0.0.0", 500) as pid:
        node.start()
        until(lambda: taken(node, pid, 500), "it is said")
        old = node.charon_pid
        node.end_agent()

    status = node.up()
    assert status["charon"]["pid"] != old


def test_ports_of_another_namespace(tmp_path: Any) -> None:
    """They are another VM's, and nobody's business."""
    with network(tmp_path, 2, "ik") as nodes:
        configure(nodes[0])
        with held(nodes[1], "0.0.0.0", 500, 4500):
            nodes[0].up()
            assert problems(nodes[0], "ike-port-taken") == []
