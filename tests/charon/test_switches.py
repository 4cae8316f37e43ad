"""A running agent names what undoes IPsec below it, and is content once that is put back."""

import subprocess
from collections.abc import Callable

import pytest

from tests.charon.nodes import NO_ESP, Node, complaints, ip, until
from tests.charon.shared_manifest import configure

pytestmark = pytest.mark.charon


def sysctl(path: str) -> Callable[[Node, int], None]:
    """Sets a sysctl of the VM."""

    def write(node: Node, value: int) -> None:
        words = ("sysctl", "-q", "-w", f"{path}={value}")
        subprocess.run(node.command(*words), check=True, timeout=20)

    return write


def default_policy(node: Node, value: int) -> None:
    """Blocks what no policy selects."""
    what = "block" if value else "accept"
    ip("xfrm", "policy", "setdefault", "out", what, netns=node.name)


@pytest.mark.parametrize(
    ("switch", "code"),
    [
        (sysctl("net/ipv4/conf/eth0/disable_xfrm"), "ipsec-disabled"),
        (sysctl("net/ipv4/conf/all/disable_policy"), "policy-check-disabled"),
        (default_policy, "policy-default-blocks"),
    ],
)
def test_named(node: Node, switch: Callable[[Node, int], None], code: str) -> None:
    """Until it is put back; a glance each interval finds it."""
    configure(node, agent=node.agent_section(interval=1))
    node.up()

    switch(node, 1)
    until(lambda: complaints(node.status()) - {NO_ESP} == {code}, "it is said")
    assert not node.content

    switch(node, 0)
    node.settled()
