"""Incidents of a night that need ESP, or a clock of one's own: one look leads to the cause.

The others are in tests/charon/test_incidents.py, and those of `agent.proof` in test_proof.py;
docs/testing.md has all of them.
"""

import contextlib
import json
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.core.words import duration, instant
from tests import incidents
from tests.charon.nodes import AGENT, SCALE, Node, ip, network, until
from tests.charon.reading import codes, reads
from tests.lab.deployment import A, B, configure, hub_of, peer_of, start
from tests.lab.firewall import rules
from tests.lab.test_verify import other_ca
from tests.lab.traffic import first_answer, ping

pytestmark = [pytest.mark.long, pytest.mark.timeout(400)]

YEAR = 365 * 86_400


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs whose agents are content."""
    with network(tmp_path, 2, "in") as (a, b):
        configure((a, b), [])
        start((a, b))
        yield a, b


FLOATING = "10.9.0.77"


@contextlib.contextmanager
def translation(pair: tuple[Node, Node]) -> Iterator[None]:
    """A router in between gives what A sends to B another source, and takes it back.

    B is answered from an address that it did not ask, and A is not told of any.
    """
    a, b = pair
    (link,) = json.loads(ip("-j", "link", "show", "eth0", netns=a.name))
    neighbour = (FLOATING, "lladdr", link["address"], "dev", "eth0")
    ip("neigh", "replace", *neighbour, netns=b.name)
    table = "netdev translation"
    nft(
        hub_of(pair),
        f"add table {table}",
        *(
            f"add chain {table} {port} {{ type filter hook ingress device {port} priority 0; }}"
            for port in ("p1", "p2")
        ),
        f"add rule {table} p1 ip saddr {A} ip daddr {B} ip saddr set {FLOATING}",
        f"add rule {table} p2 ip saddr {B} ip daddr {FLOATING} ip daddr set {A}",
    )
    try:
        yield
    finally:
        nft(hub_of(pair), f"delete table {table}")


def nft(netns: str, *lines: str) -> None:
    """Have nft perform lines in a namespace."""
    words = ("ip", "netns", "exec", netns, "nft", "-f", "-")
    subprocess.run(words, input="\n".join(lines), text=True, check=True, timeout=30)


def test_a_nat_in_between(pair: tuple[Node, Node]) -> None:
    """On the VM that gets the other kind of ESP: the kernel's counter, what it means, and the
    property to compare. The VM behind the translation only sees that no ESP comes back."""
    a, b = pair
    with translation(pair):
        # B asks first, and so finds the translation; A does not, and sends plain ESP.
        reads(
            b,
            incidents.NAT_BETWEEN,
            asking=lambda: (ping(b.name, A, 5, 0.3), ping(a.name, B, 5, 0.3)),
        )


def outage(node: Node) -> tuple[str, str, str]:
    """When the newest outage that the status knows began and ended, "" while it lasts; how long."""
    newest = node.status()["outages"][-1]
    begin, end = newest["begin"], newest["end"]
    return instant(begin), instant(end) if end else "", duration((end or begin) - begin, "h")


def cut_off(node: Node) -> list[dict[str, str]]:
    """What `doctor` says of outages."""
    words = ("doctor", "--json", "--config", str(node.config))
    done = subprocess.run(
        node.command(*AGENT, *words), check=False, capture_output=True, text=True, timeout=120
    )
    checks = {one["name"]: one["findings"] for one in json.loads(done.stdout)["checks"]}
    return list(checks["outages"])


@pytest.mark.esp
def test_esp_dropped_one_way(pair: tuple[Node, Node]) -> None:
    """A firewall passes IKE and drops ESP on its way to B: the sender's status and log name the
    peer and the protocol; once ESP passes, nothing is said any more. `doctor` says from when to
    when, also while no agent runs."""
    a, b = pair
    first_answer(a, B)
    until(lambda: peer_of(a, B).get("state") == "installed", "a's status has the SA")
    with rules(b.name, f"before ip saddr {A} ip protocol esp drop"):
        reads(a, incidents.ESP_LOST_ONE_WAY.of(peer=B), asking=lambda: ping(a.name, B, 10, 0.3))
        assert (peer_of(a, B)["state"], peer_of(a, B)["one_way"]) == ("installed", "out")
        begin, *_ = outage(a)
        why = f"{B} answers IKE, but no ESP comes back from it"
        (lasts,) = cut_off(a)
        assert lasts["message"] == f"{B} has been cut off since {begin}: {why}"
        assert lasts["command"].startswith(f"ipsec-agent verify {B}")
        a.end_agent(signal.SIGKILL)
        (left,) = cut_off(a)
        assert left["message"] == f"{B} was cut off from {begin} until the agent ended: {why}"
        assert left["command"].startswith(f"grep {B} ")
        a.start()
        until(lambda: a.status().get("outages"), "the next agent remembers it")

    first_answer(a, B)
    until(lambda: not codes(a), "it is over", 90)
    until(lambda: outage(a)[1], "the outage is over", 30)
    begin, end, lasted = outage(a)
    (over,) = cut_off(a)
    assert over["message"] == f"{B} was cut off from {begin} until {end} ({lasted}): {why}"
    assert over["command"].startswith(f"grep {B} ")


needs_guest = pytest.mark.skipif(SCALE == 1, reason="only the guest's clock is nobody else's")


@pytest.fixture
def clock() -> Iterator[None]:
    """The guest's clock is right again at the end."""
    began, real = time.monotonic(), time.time()
    try:
        yield
    finally:
        time.clock_settime(time.CLOCK_REALTIME, real + time.monotonic() - began)


def set_clock(seconds: float) -> None:
    """Set the clock ahead by so many seconds, or back."""
    time.clock_settime(time.CLOCK_REALTIME, time.time() + seconds)


def wrong_clock(node: Node) -> None:
    """Its status says of the clock first that it is wrong, and only then what has expired."""
    wrong = incidents.CLOCK_AHEAD.of(clock=time.strftime("%Y-", time.gmtime()))
    reads(node, wrong, {incidents.EXPIRED.code})
    (expired,) = [one for one in node.status()["problems"] if "certificate-expired" in one["code"]]
    assert "compare the clock with another VM's first" in expired["hint"]
    shown = node.ask("status").stdout
    assert shown.index("clock-wrong: ") < shown.index("certificate-expired: ")


@needs_guest
@pytest.mark.usefixtures("clock")
def test_a_clock_a_year_ahead(pair: tuple[Node, Node]) -> None:
    """The clock is named, and not the certificates, which only seem to have expired. Set right,
    all is well without anybody's help."""
    a, b = pair
    first_answer(a, B)
    set_clock(YEAR)

    for node in pair:
        wrong_clock(node)
    # What is there goes on.
    first_answer(b, A)

    set_clock(-YEAR)
    for node in pair:
        node.settled()
    first_answer(a, B)


@needs_guest
@pytest.mark.usefixtures("clock")
def test_a_clock_that_is_set_back(tmp_path: Path) -> None:
    """What failed by the wrong clock has still failed, and the next success is after it."""
    with network(tmp_path, 2, "cb") as (a, b):
        configure([a], [])
        other_ca(b)
        start((a, b))
        set_clock(YEAR)
        wrong_clock(a)
        ping(a.name, B, 1)
        until(lambda: "AUTH_FAILED" in a.charon_log, "it is refused")
        wrong_clock(a)
        set_clock(-YEAR)

        reads(a, incidents.REFUSED.of(peer=B), {"clock-wrong", "certificate-expired"})

        configure([b], [])
        assert b.ask("reload").returncode == 0
        first_answer(a, B)
        until(lambda: not codes(a), lambda: f"it is over: {a.status()['problems']}")
