"""A deployment in the lab: VMs that share one manifest, and what their agents say of each other."""

import contextlib
import functools
from collections.abc import Mapping, Sequence
from ipaddress import ip_address
from typing import Any

from vici.exception import CommandException

from ipsec_agent.config_file import load_config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.swanctl import renewal_message
from tests.certificates import Issued, Key, ec_key, make_ca, make_leaf
from tests.charon.nodes import Node
from tests.lab.truth import charon_of
from tests.manifests import manifest

A, B, C = "10.9.0.1", "10.9.0.2", "10.9.0.3"
"""Addresses of the first three VMs."""


def hub_of(nodes: Sequence[Node]) -> str:
    """The namespace of the bridge."""
    return nodes[0].name.rpartition("-")[0] + "-0"


@functools.cache
def authority() -> Issued:
    """The CA of all deployments of this session."""
    return make_ca()


@functools.cache
def issued(key: Key | None = None) -> tuple[Issued, Issued]:
    """The CA, and an instance certificate that is the same each time for the same key.

    Without a key it has one on P-256: to check and to use an RSA key takes the lab's guest seconds.
    """
    return authority(), make_leaf(authority(), key=key or ec_key())


def configure(
    nodes: Sequence[Node],
    exempt: Sequence[str],
    encrypted: Sequence[str] = ("10.9.0.0/24",),
    *,
    key: Key | None = None,
    extra: Mapping[str, Any] | None = None,
    **agent: Any,
) -> None:
    """Give every node the same manifest: encrypt all of the lab's subnet, but for the exempt.

    Args:
        key: of the instance certificate, if not the usual one.
        extra: further properties of the manifest.
        agent: further keys of the section `agent`.
    """
    ca, leaf = issued(key)
    for node in nodes:
        node.config.write_text(
            manifest(
                encrypted,
                exempt,
                leaf=leaf,
                cas=[ca],
                agent=node.agent_section(**agent),
                prestart_timeout=100,
                **(extra or {}),
            )
        )


def start(nodes: Sequence[Node]) -> None:
    """Start an agent on every node, all at once, and wait until each is healthy."""
    for node in nodes:
        node.start()
    for node in nodes:
        node.settled()


def double(node: Node, own: str, peer: str, **child: str) -> None:
    """Have charon negotiate one more CHILD_SA with a peer, as where both VMs begin at once.

    Args:
        child: further settings of the CHILD_SA, as swanctl.conf(5) has them.
    """
    config = load_config(node.config)
    address = ip_address(own)
    one = renewal(desired(config, Placement(address, (address,))), (address, ip_address(peer)))
    assert one is not None
    message = renewal_message(one)
    message[one.name]["children"][one.children[0].name] |= child
    with charon_of(node) as session:
        session.load_conn(message)
        try:
            list(session.initiate({"child": one.name, "ike": one.name, "timeout": "60000"}))
        finally:
            # The agent unloads it, too: it knows it by its name as a renewal that nobody waits for.
            with contextlib.suppress(CommandException):
                session.unload_conn({"name": one.name})


def peer_of(node: Node, address: str) -> dict[str, Any]:
    """The entry of a peer in a node's status; empty where there is none."""
    found = [peer for peer in node.status()["peers"] if peer["address"] == address]
    return found[0] if found else {}
