"""Problems that few VMs ever have, and none without ESP: each is provoked and told in its whole
sentence."""

import re
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from ipsec_agent.host.control_client import ask
from tests.charon.nodes import SCALE, Node, ip, network
from tests.charon.reading import ends, tells
from tests.charon.test_doctor_problems import container
from tests.lab.deployment import B, configure, start
from tests.lab.test_rotation import FIRST, LAST, OLD, SECOND, mesh
from tests.lab.test_rotation import configure as give

pytestmark = [pytest.mark.esp, pytest.mark.timeout(400)]


def reload(node: Node) -> None:
    """Whatever the peers say of it."""
    ask(str(node.run_dir / "control.sock"), "reload", deadline=60 * SCALE, force=True)


def ten(text: str) -> str:
    """A count down of minutes as it begins."""
    return re.sub(r"ends them in \d+ (min|s):", "ends them in 10 min:", text)


@pytest.mark.long
def test_a_ca_is_removed(tmp_path: Path) -> None:
    """While a peer has a certificate of it: for how long its SA stays, and what to do about it."""
    with mesh(tmp_path, 2, OLD, FIRST, SECOND) as (ours, _):
        give([ours], LAST, SECOND)
        reload(ours)

        tells(
            ours,
            "ca-removed",
            "warning",
            "SAs with 1 peer were made under a CA that the config no longer has; the agent ends"
            f" them in 10 min: {B}",
            "give these VMs a certificate that a CA of ca_certificates signed, or put the CA back"
            " until they have one",
            steady=ten,
        )

        give([ours], LAST, SECOND, FIRST)
        reload(ours)
        ends(ours, "ca-removed")


SPI = "0xc0000001"
FOREIGN = (
    f"xfrm state add src 192.0.2.9 dst {B} proto esp spi {SPI} mode transport"
    f" aead rfc4106(gcm(aes)) 0x{20 * 'ab'} 128"
)
"""Another program's SA towards the peer, from an address that nobody has."""


@pytest.fixture
def taken(tmp_path: Path) -> Iterator[tuple[Node, Node]]:
    """Two VMs; the first has an SA of another program's with the only SPI that the second gives."""
    with network(tmp_path, 2, "sp") as (ours, theirs):
        configure([ours], [])
        charon = {
            "log": str(theirs.directory / "charon.log"),
            "settings": {"spi_min": SPI, "spi_max": SPI},
        }
        configure([theirs], [], charon=charon)
        start([ours, theirs])
        ip(*FOREIGN.split(), netns=ours.name)
        yield ours, theirs


@pytest.mark.long
def test_an_sa_that_the_kernel_refuses(taken: tuple[Node, Node]) -> None:
    """Though it can do ESP: that the kernel did it, and not the peer."""
    ours, _ = taken

    tells(
        ours,
        "kernel-refuses",
        "warning",
        "the kernel refused an SA or a policy"
        " (charon: unable to install outbound IPsec SA (SAD) in kernel)",
        f"`ipsec-agent check --machine --config {ours.config}` says what the kernel lacks",
        asking=lambda: ours.send(B),
        steady=lambda text: re.sub(r"unable to add SAD.*\)\)$", SAD, text),
    )


SAD = "unable to install outbound IPsec SA (SAD) in kernel)"
"""What charon says last of it; of one attempt it says two things."""

FLOWTABLE = """table inet fast {
flowtable f { hook ingress priority 0; devices = { eth0, v0 }; }
chain forward { type filter hook forward priority 0; meta l4proto udp flow add @f; }; }
"""


@pytest.mark.long
def test_a_flowtable(tmp_path: Path) -> None:
    """Which one, what the guard does about it, and how to delete it."""
    with network(tmp_path, 1, "fo") as (node,):
        configure([node], [])
        start([node])
        with container(node):
            nft(node, FLOWTABLE)
            tells(
                node,
                "flows-offloaded",
                "warning",
                "flowtable inet fast f forwards connections of containers past IPsec and the guard;"
                " the guard drops the clear ones (0 packets so far), so these connections break",
                "delete the rules with `flow add`, then run `nft delete flowtable inet fast f`; or"
                " remove its devices",
            )

            nft(node, "flush chain inet fast forward")
            nft(node, "delete flowtable inet fast f")
            ends(node, "flows-offloaded")


def nft(node: Node, text: str) -> None:
    """Have nft do something in a VM."""
    words = node.command("nft", "-f", "-")
    subprocess.run(words, input=text, text=True, check=True, timeout=60 * SCALE)
