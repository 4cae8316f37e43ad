"""What agents of two VMs that were harmed report, as `doctor` tells it, each with what to type.

Both live through it once; the tests read what was said.
"""

import contextlib
import json
import re
import signal
import socket
import subprocess
from collections.abc import Iterator
from typing import Any

import pytest

from ipsec_agent.core.words import instant
from tests.charon.nodes import AGENT, Node, ips, network, remove, until
from tests.lab.deployment import A, B, configure
from tests.lab.namespaces import inside

pytestmark = [pytest.mark.charon, pytest.mark.timeout(200)]

IP_OPTIONS = 4
SOURCE_ROUTE = bytes([131, 7, 4]) + socket.inet_aton(A) + b"\0"
"""The option of IPv4 that has a packet go by way of another VM (RFC 791, section 3.1)."""

GATEWAY = "10.9.0.254"
NO_TABLE = "while :; do nft delete table inet ipsec_agent; sleep 0.02; done"
"""Another program that removes the guard, again and again."""

NO_POLICY = "while :; do ip xfrm policy flush; sleep 0.05; done"
"""One that removes all policies."""

Told = dict[str, dict[str, str]]


def doctor(node: Node) -> Told:
    """The findings, by their codes; of outages there is one here."""
    done = subprocess.run(
        node.command(*AGENT, "doctor", "--json", "--config", str(node.config)),
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout, done.stderr
    checks = json.loads(done.stdout)["checks"]
    return {one["code"]: one for check in checks for one in check["findings"]}


def reports(node: Node, *codes: str) -> bool:
    """Whether its agent reports all of these."""
    return set(codes) <= {one["code"] for one in node.status().get("problems", ())}


@contextlib.contextmanager
def undone(node: Node, script: str) -> Iterator[None]:
    """A script takes something away, faster than the agent puts it back."""
    words = node.command("sh", "-c", script)
    with subprocess.Popen(words, stderr=subprocess.DEVNULL) as program:
        try:
            yield
        finally:
            program.kill()


def routed(node: Node) -> None:
    """Send packets with a source route; this VM's own guard drops them."""
    with inside(node.name), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.setsockopt(socket.IPPROTO_IP, IP_OPTIONS, SOURCE_ROUTE)
        for _ in range(3):
            with contextlib.suppress(PermissionError):
                channel.sendto(b"x", (A, 9999))


@contextlib.contextmanager
def container(node: Node) -> Iterator[str]:
    """A container of a VM that forwards for it, without NAT; its namespace."""
    name = f"{node.name}c"
    try:
        ips(
            f"netns add {name}",
            f"link add v0 netns {node.name} mtu 1400 type veth peer v1 mtu 1400 netns {name}",
        )
        ips("link set v0 up", "addr add 172.31.0.1/24 dev v0", netns=node.name)
        up = ("link set v1 up", "addr add 172.31.0.2/24 dev v1")
        ips(*up, "route add default via 172.31.0.1", netns=name)
        forward = ("sysctl", "-qw", "net.ipv4.ip_forward=1")
        subprocess.run(node.command(*forward), check=True, timeout=30)
        yield name
    finally:
        remove((name,))


def send(netns: str) -> None:
    """Send a datagram to an encrypted address."""
    with inside(netns), socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as channel:
        channel.sendto(b"x", ("10.9.0.200", 9999))


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What was said of VM A, of VM B, whose list is another one, and of A afterwards."""
    with network(tmp_path_factory.mktemp("problems"), 2, "dm") as (a, b):
        configure([a], [], uplinks=["eth0"], metrics="127.0.0.1:9109")
        configure([b], [], [f"{B}/32", "10.9.0.128/25"], uplinks=["eth0"])
        route = ("ip", "route", "add", "default", "via", GATEWAY)
        subprocess.run(a.command(*route), check=True, timeout=30)
        with inside(a.name):
            taken = socket.create_server(("127.0.0.1", 9109))
        with taken:
            a.start()
            b.start()
            until(lambda: a.enforces() and b.enforces(), "up")
            a.send(B)
            routed(b)
            with container(b) as outsider:
                send(outsider)
                told = ("selectors-differ", "clear-disguised", "nat-bypassed")
                until(lambda: reports(b, *told), lambda: b.log)
                found: dict[str, Any] = {"b": doctor(b)}
            until(lambda: reports(a, "selectors-differ", "metrics-not-served"), lambda: a.log)
            found["a"] = doctor(a)
            with undone(a, NO_TABLE):
                until(lambda: reports(a, "repair-paused"), lambda: a.log)
                wanted = {"guard-missing", "repair-paused"}
                found["open"] = until(
                    lambda: told if wanted <= (told := doctor(a)).keys() else None, lambda: a.log
                )
            found["begin"] = instant(a.status()["outages"][-1]["begin"])
            with undone(a, NO_POLICY):
                found["lacking"] = until(
                    lambda: told if "policies-missing" in (told := doctor(a)) else None,
                    lambda: a.log,
                )
            a.end_agent(signal.SIGKILL)
            found["left"] = doctor(a)
    return found


@pytest.mark.parametrize(
    ("vm", "code", "message", "command"),
    [
        (
            "a",
            "metrics-not-served",
            "the metrics cannot be served on 127.0.0.1:9109: ",
            "ss -ltnp sport = :9109",
        ),
        (
            "a",
            "lockout-risk",
            f"{GATEWAY} (default gateway) is inside the encrypted set: packets to it, its ICMP"
            " errors and path MTU discovery through it are lost",
            "grep -n -A9 no_ipsec_subnets ",
        ),
        (
            "a",
            "selectors-differ",
            f"{B} and this VM do not agree on what to encrypt (charon: ",
            f"ipsec-agent verify {B} --socket ",
        ),
        (
            "b",
            "selectors-differ",
            f"{A} and this VM do not agree on what to encrypt (charon: ",
            f"ipsec-agent verify {A} --socket ",
        ),
        (
            "b",
            "clear-disguised",
            "the guard dropped 3 packets with an IPv4-mapped IPv6 address, a source route or a"
            " routing header, or with headers cut off by fragmentation, which would bypass IPsec",
            "tcpdump -ni any 'ip[0] > 0x45 or ip6[6] = 43 or ip6[6] = 44 or net ::ffff:0:0/96'",
        ),
        (
            "b",
            "nat-bypassed",
            "packets from 172.31.0.2 (1 packet) leave in clear for encrypted addresses: these"
            " senders are in no ipsec subnet and not behind NAT",
            "ipsec-agent guard status --config ",
        ),
        (
            "lacking",
            "policies-missing",
            "the kernel lacks ",
            "ip xfrm monitor policy",
        ),
        (
            "open",
            "guard-missing",
            "the guard's nftables table is not loaded; only charon's policies block clear packets",
            "nft monitor",
        ),
        (
            "open",
            "repair-paused",
            "another program keeps undoing the agent's repairs (guard); the agent repairs less"
            " often",
            "ip xfrm monitor",
        ),
    ],
)
def test_what_is_told(said: dict[str, Any], vm: str, code: str, message: str, command: str) -> None:
    """The sentence and the command."""
    assert said[vm][code]["message"].startswith(message)
    assert said[vm][code]["command"].startswith(command)


def test_policies_that_are_missing(said: dict[str, Any]) -> None:
    """How many of how many, and of which connections."""
    message = said["lacking"]["policies-missing"]["message"]

    assert re.fullmatch(
        r"the kernel lacks [1-5] of [35] policies \(ipsec-10\.9\.0\.0/24.*\)", message
    )


def test_outages(said: dict[str, Any]) -> None:
    """One that lasts, and one of which the agent that has ended knows no end."""
    why = f"{B} and this VM do not agree on what to encrypt"
    lasts, left = said["a"]["outages"], said["left"]["outages"]

    assert lasts["message"] == f"{B} has been cut off since {said['begin']}: {why}"
    assert lasts["command"].startswith(f"ipsec-agent verify {B} --socket ")
    assert left["message"] == (f"{B} was cut off from {said['begin']} until the agent ended: {why}")
    assert left["command"] == f"grep {B} /var/log/ipsec-agent/agent.log"
