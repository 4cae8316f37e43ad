"""A fleet in which each VM has a certificate of its own, beside a VM with one that others share."""

import re
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest

from ipsec_agent.core.certificates import order
from ipsec_agent.core.certificates.issuing import Subject, authority, instance
from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.charon.nodes import Node, need_ike_sas, network, until
from tests.charon.shared_manifest import configure

pytestmark = [pytest.mark.charon, pytest.mark.timeout(60)]

NOW = datetime.now(UTC)
CA = authority(ec_key(1), name="CA", serial=1, now=NOW, days=9)
VMS = ("10.9.0.1", "10.9.0.2")


def issued(subject: Subject, number: int) -> Issued:
    """A certificate as `certs create` makes it, with a key that is quick to make."""
    key = ec_key(number)
    made = instance(key, CA, subject, serial=number, now=NOW, days=9)
    return Issued(made, key)


def accepted(node: Node, subject: str) -> bool:
    """Whether its charon has accepted a peer's proof that it is this one."""
    said = rf"authentication of '{re.escape(subject)}' with \S+ successful"
    return re.search(said, node.charon_log) is not None


def test_each_accepts_any_certificate_of_the_ca(tmp_path: Path) -> None:
    """Two charons with different certificates of one CA accept each other, and one with the
    certificate that VMs share; not one whose certificate another CA of that name signed."""
    identities = [
        *(issued(one, 10 + number) for number, one in enumerate(order.per_vm(VMS))),
        issued(order.shared("IPsec peer", ()), 20),
    ]
    foreign = make_ca("CA", key=ec_key(30))
    identities.append(make_leaf(foreign, "Stranger", key=ec_key(31)))
    with network(tmp_path, 4, "id") as nodes:
        for node, leaf in zip(nodes, identities, strict=True):
            cas = [foreign if node is nodes[3] else Issued(CA.certificate, ec_key(1))]
            configure(node, leaf=leaf, cas=cas, no_ipsec=[])
            node.start()
        first, second, shared, stranger = nodes
        for node in nodes:
            until(node.enforces, f"{node.name} has its policies")

        need_ike_sas(first)
        first.send("10.9.0.2")
        first.send("10.9.0.3")
        stranger.send("10.9.0.1")

        for node, subject in (
            (first, "CN=10.9.0.2"),
            (second, "CN=10.9.0.1"),
            (first, "CN=IPsec peer"),
            (shared, "CN=10.9.0.1"),
        ):
            until(partial(accepted, node, subject), f"{node.name}: {subject}")
        until(
            lambda: "peer-refuses-us" in str(stranger.status()),
            lambda: f"the stranger is refused: {stranger.status()} {stranger.charon_log[-3000:]}",
        )
        assert not accepted(first, "CN=Stranger")
