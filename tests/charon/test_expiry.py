"""Certificates that end, with real charons: what is told, what goes on, how they are renewed."""

import re
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.charon.nodes import DEADLINE, SCALE, Node, complaints, need_ike_sas, network, until
from tests.charon.shared_manifest import WITHOUT_SHUNT, configure

pytestmark = [pytest.mark.charon, pytest.mark.timeout(180)]

CA = make_ca("CA", key=ec_key(1))
OLD_CA = make_ca("CA", key=ec_key(2), days=9, not_before=datetime.now(UTC) - timedelta(days=10))
SHORT = 20.0 * SCALE
"""Seconds for which a short-lived certificate holds: a handshake and a look."""


def ending(ca: Issued, name: str, key: int, left: timedelta) -> Issued:
    """A certificate that ends so long from now, or did before."""
    start = datetime.now(UTC) + left - timedelta(days=400)
    return make_leaf(ca, name, key=ec_key(key), days=400, not_before=start)


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs."""
    with network(tmp_path, 2, "ex") as nodes:
        yield nodes[0], nodes[1]


def give(node: Node, leaf: Issued, ca: Issued = CA) -> None:
    """Give a VM a set."""
    configure(node, leaf=leaf, cas=[ca], no_ipsec=[])


def start(*nodes: Node) -> None:
    """Start agents, and wait until their policies are there: they come one after the other."""
    for node in nodes:
        node.start()
    for node in nodes:
        until(
            lambda: len(node.policies()) == len(WITHOUT_SHUNT),  # noqa: B023 - called here
            f"{node.name} has its policies",
        )


def accepted(node: Node, subject: str) -> bool:
    """Whether its charon has accepted a peer's proof that it is this one."""
    said = rf"authentication of '{re.escape(subject)}' with \S+ successful"
    return re.search(said, node.charon_log) is not None


def problems(node: Node) -> dict[str, dict[str, Any]]:
    """Its problems by their codes."""
    return {one["code"]: one for one in node.status().get("problems", ())}


def test_what_a_peer_has_shown(pair: tuple[Node, Node]) -> None:
    """The end of a peer's certificate is told by both: by the peer, whose it is, the louder."""
    first, second = pair
    give(first, ending(CA, "one", 11, timedelta(days=300)))
    give(second, ending(CA, "two", 12, timedelta(days=5)))
    start(first, second)

    need_ike_sas(first)
    first.send("10.9.0.2")
    until(lambda: accepted(first, "CN=two"), "a handshake")

    told = until(lambda: problems(first).get("peer-certificate-expires"), "the peer's end is told")
    assert told["severity"] == "warning"
    assert "peers have 1 certificate to be renewed: CN=two ends on " in told["message"]
    (shown,) = [one for one in first.status()["certificates"] if one["role"] == "peer"]
    assert (shown["subject"], round(shown["days_left"])) == ("CN=two", 5)
    own = problems(second)["certificate-expires"]
    assert own["severity"] == "error"
    assert own["message"].endswith(", in 4 days")
    assert "peer-certificate-expires" not in problems(second)
    assert '"certificate-expires"' in second.log


@pytest.mark.parametrize("ca", [CA, OLD_CA], ids=["the certificate", "and its CA"])
def test_expired_before_the_start(pair: tuple[Node, Node], ca: Issued) -> None:
    """A deployment that has expired starts, is closed, and is renewed by one reload on each VM."""
    first, second = pair
    for number, node in enumerate(pair):
        give(node, ending(ca, f"vm{number}", 11 + number, timedelta(days=-2)), ca)
    start(first, second)
    closed = first.policies()

    first.send("10.9.0.2")
    until(lambda: "certificate-expired" in complaints(first.status()), "it is told")
    assert problems(first)["certificate-expired"]["severity"] == "critical"
    until(lambda: "received end entity cert" in second.charon_log, "a handshake is tried")
    until(lambda: "AUTH_FAILED" in first.charon_log, "it is refused")
    assert not accepted(second, "CN=vm0")

    for number, node in enumerate(pair):
        give(node, ending(CA, f"new{number}", 21 + number, timedelta(days=300)))
        done = node.ask("reload")
        assert (done.returncode, done.stderr) == (0, "")
        assert "certificate-expired" not in problems(node)

    def reached() -> bool:
        # What was refused a moment ago waits in the kernel, and the next packet with it.
        first.send("10.9.0.2")
        return accepted(second, "CN=new0")

    until(reached, "the new certificates are accepted", every=0.5)
    assert first.policies() == closed


def test_expired_is_not_taken_for_what_is_valid(pair: tuple[Node, Node]) -> None:
    """No reload makes it worse; with the expired one in force, everything else can be changed."""
    node = pair[0]
    give(node, ending(CA, "good", 11, timedelta(days=300)))
    start(node)
    give(node, ending(CA, "old", 12, timedelta(days=-1)))

    refused = node.ask("reload")
    assert refused.returncode == 1
    assert "the certificate CN=old expired on" in refused.stderr
    assert "certificate-expired" not in problems(node)

    node.end_agent()
    start(node)
    until(lambda: "certificate-expired" in problems(node), "a start takes it")
    text = node.config.read_text()
    node.config.write_text(text.replace("no_ipsec_subnets: []", "no_ipsec_subnets: [10.9.0.9/32]"))
    done = node.ask("reload")

    assert done.returncode == 0, done.stderr
    assert (
        "warning: addons[0].properties.ipsec.instance_certificate: the certificate" in done.stderr
    )
    assert any("10.9.0.9/32" in policy for policy in node.policies())


def test_expired_meanwhile(pair: tuple[Node, Node]) -> None:
    """An SA outlives the certificate that it was made with, and the agent leaves it alone."""
    first, second = pair
    for number, node in enumerate(pair):
        give(node, ending(CA, f"vm{number}", 11 + number, timedelta(seconds=SHORT)))
    end = time.time() + SHORT
    start(first, second)
    need_ike_sas(first)
    first.send("10.9.0.2")
    until(lambda: accepted(first, "CN=vm1"), "a handshake")
    before = first.policies(), first.charon_pid
    sas = until(lambda: [one["ike_sas"] for one in first.status()["peers"]], "an SA")

    until(lambda: "certificate-expired" in problems(first), "the end", end - time.time() + DEADLINE)

    assert [one["ike_sas"] for one in first.status()["peers"]] == sas
    assert (first.policies(), first.charon_pid) == before
