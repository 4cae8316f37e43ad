"""Additional key exchanges (RFC 9370) with the charon that this machine has, old or new."""

import re
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import pytest

from ipsec_agent.core.manifest.proposals import classical
from ipsec_agent.core.offers import FIRST_WITH_ADDITIONAL
from tests.charon.nodes import Node, complaints, keeps_ike_sa, network, until
from tests.charon.shared_manifest import configure

pytestmark = [pytest.mark.charon, pytest.mark.timeout(180)]

TWICE = "aes256gcm16-prfsha384-x25519-ke1_ecp384"
ML_KEM = "aes256gcm16-prfsha384-ecp384-ke1_mlkem768"


@pytest.fixture
def pair(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs."""
    with network(tmp_path, 2, "pq") as nodes:
        yield nodes[0], nodes[1]


def can_twice(node: Node) -> bool:
    """Whether its charon has additional key exchanges."""
    version = node.status()["charon"]["version"]
    return int(version.partition(".")[0]) >= FIRST_WITH_ADDITIONAL


def selected(node: Node) -> str:
    """What it has agreed on with a peer, by its log; "" before."""
    found = re.search(r"selected proposal: IKE:(\S+)", node.charon_log)
    return found[1] if found else ""


def shown(node: Node) -> str:
    """The same by the status."""
    peers = node.status().get("peers", [])
    return next((peer["ike_algorithms"] for peer in peers if peer["ike_algorithms"]), "")


def started(*nodes: Node) -> None:
    """Start the agents, and have the first VM negotiate with the second."""
    for node in nodes:
        node.start()
    for node in nodes:
        until(node.enforces, f"{node.name} has its policies")
    nodes[0].send("10.9.0.2")


def test_no_peer_is_lost(pair: tuple[Node, Node]) -> None:
    """A VM that asks for a second key exchange, and one that never heard of it, agree without; the
    status says on what."""
    first, second = pair
    configure(first, no_ipsec=[], ike_proposals=[TWICE])
    configure(second, no_ipsec=[], ike_proposals=[classical(TWICE)])
    started(first, second)

    for node in pair:
        agreed = until(partial(selected, node), f"a handshake of {node.name}")
        assert agreed == "AES_GCM_16_256/PRF_HMAC_SHA2_384/CURVE_25519"
        if keeps_ike_sa(node):
            said = until(partial(shown, node), f"the status of {node.name}")
            assert said == "AES_GCM_16-256/PRF_HMAC_SHA2_384/CURVE_25519"
    assert ("proposal-unsupported" in complaints(first.status())) is not can_twice(first)
    assert "proposal-unsupported" not in complaints(second.status())


def test_both_can(pair: tuple[Node, Node]) -> None:
    """Two VMs that both can do it do it; two whose charon cannot, do without."""
    for node in pair:
        configure(node, no_ipsec=[], ike_proposals=[TWICE])
    started(*pair)

    agreed = until(lambda: selected(pair[1]), "a handshake")
    twice = can_twice(pair[1])
    assert agreed.endswith("/KE1_ECP_384" if twice else "/CURVE_25519")
    exchanges = until(lambda: "received end entity cert" in pair[1].charon_log, "it goes on") and (
        pair[1].charon_log.count("parsed IKE_INTERMEDIATE request")
    )
    assert exchanges == (1 if twice else 0)
    if keeps_ike_sa(pair[0]):
        said = until(lambda: shown(pair[0]), "the status")
        assert said.endswith("/CURVE_25519/ECP_384" if twice else "/CURVE_25519")


def test_nothing_weaker_takes_the_place(pair: tuple[Node, Node]) -> None:
    """With `!` a charon that cannot do it gets no connection, and the start says why."""
    node = pair[0]
    configure(node, no_ipsec=[], ike_proposals=[f"{ML_KEM}!"], prestart_timeout=8)
    node.start()
    told = until(
        lambda: [
            p for p in node.status().get("problems", ()) if p["code"] == "proposals-impossible"
        ],
        "it is told",
    )

    assert told[0]["severity"] == "critical"
    assert "cannot do ke1_mlkem768" in told[0]["message"]
    if can_twice(node):
        return  # It loads, and negotiates with peers that can.
    assert not [policy for policy in node.policies() if "10.9.0.0/24" in policy]
    assert node.agent is not None
    assert node.agent.wait(60) == 1
    assert "cannot do ke1_mlkem768" in node.log


def test_a_reload_into_what_it_cannot_do(pair: tuple[Node, Node]) -> None:
    """It is refused, says what to write, and changes nothing."""
    node = pair[0]
    configure(node, no_ipsec=[])
    node.start()
    node.settled()
    before = node.policies()
    assert before

    for name, proposals in (("ike", f"{ML_KEM}!"), ("esp", "aes256gcm16-ecp384-ke1_mlkem768!")):
        configure(node, no_ipsec=[], **{f"{name}_proposals": [proposals]})
        done = node.ask("reload")
        assert done.returncode == 1
        assert "cannot do ke1_mlkem768" in done.stderr
        assert f"add a proposal that it can do to {name}_proposals, such as aes256" in done.stderr
        assert "nothing was changed" in done.stderr

    assert "reload-refused" in complaints(node.status())
    assert "proposals-impossible" not in complaints(node.status())
    assert node.policies() == before
