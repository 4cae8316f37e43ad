"""The manifest that the VMs of these tests share, and the policies that one has by it."""

from tests.certificates import make_ca, make_leaf
from tests.charon.nodes import Node
from tests.manifests import manifest

EXPECTED = [
    "0.0.0.0/0 10.9.0.255/32 out",
    "0.0.0.0/0 10.9.0.3/32 out",
    "10.9.0.0/24 10.9.0.1/32 in",
    "10.9.0.1/32 10.9.0.0/24 out",
    "10.9.0.255/32 0.0.0.0/0 fwd",
    "10.9.0.255/32 0.0.0.0/0 in",
    "10.9.0.3/32 0.0.0.0/0 fwd",
    "10.9.0.3/32 0.0.0.0/0 in",
]
WITHOUT_SHUNT = [line for line in EXPECTED if "10.9.0.3/32" not in line]


def configure(node: Node, **changes: object) -> None:
    """Give a node the manifest that all of them share."""
    ca = make_ca()
    settings = {
        "ipsec": ["10.9.0.0/24"],
        "no_ipsec": ["10.9.0.3/32"],
        "leaf": make_leaf(ca),
        "cas": [ca],
        "agent": node.agent_section(),
        **changes,
    }
    node.config.write_text(manifest(**settings))  # type: ignore[arg-type]
