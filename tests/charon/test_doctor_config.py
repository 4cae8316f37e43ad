"""What an operator has done to one VM's config and guard, as `doctor` tells it, with what to type.

One agent lives through it; the tests read what was said.
"""

import functools
import signal
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tests.certificates import ec_key, make_leaf
from tests.charon.nodes import Node, network, until
from tests.charon.test_doctor_problems import Told, doctor, reports
from tests.lab.deployment import authority
from tests.manifests import manifest

pytestmark = [pytest.mark.charon, pytest.mark.timeout(200)]

ENDS = datetime.now(UTC) + timedelta(days=5, hours=12)


def write(node: Node, subnet: str = "10.9.0.0/24", *, guard: str = "enforce", **extra: Any) -> None:
    """A config with a certificate that soon ends; the agent looks at the file each second."""
    leaf = make_leaf(authority(), key=ec_key(3), days=365, not_before=ENDS - timedelta(days=365))
    agent = node.agent_section(uplinks=["eth0"], interval=1, guard=guard)
    text = manifest([subnet], leaf=leaf, cas=[authority()], agent=agent, **extra)
    node.config.write_text(text)


def optional(node: Node) -> None:
    """IPsec has just been installed."""
    write(node, optional=True)
    node.start()


def changed(node: Node) -> None:
    """Somebody has written another config, and has gone."""
    write(node, guard="none")


def unguarded(node: Node) -> None:
    """It is loaded."""
    assert node.ask("reload", "--force").returncode == 0


def refused(node: Node) -> None:
    """The next one is wrong."""
    write(node, "10.9.0.0/33")
    assert node.ask("reload").returncode == 1


def lowered(node: Node) -> None:
    """A good one is there again, and the guard is taken down for a look."""
    write(node)
    assert node.ask("reload").returncode == 0
    until(lambda: node.status()["guard"]["state"] == "up", "the guard is up")
    assert node.ask("guard down", "--config", str(node.config)).returncode == 0


PHASES: tuple[tuple[str, Callable[[Node], None]], ...] = (
    ("optional-on", optional),
    ("config-changed", changed),
    ("guard-none", unguarded),
    ("reload-refused", refused),
    ("guard-lowered", lowered),
)
"""The problem that is waited for after each."""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Told]:
    """What was said of the VM, by the problem of the moment."""
    with network(tmp_path_factory.mktemp("config"), 1, "dc") as (node,):
        found = {"": {"node": {"config": str(node.config), "run": str(node.run_dir)}}}
        for code, happens in PHASES:
            happens(node)
            until(functools.partial(reports, node, code), lambda: node.log[-3000:])
            found[code] = doctor(node)
        node.end_agent(signal.SIGTERM)
    return found


SAYS = {
    "optional-on": (
        "IPsec is optional (optional: true), so this VM speaks in clear with peers that have no"
        " IPsec; enforcing now would cut off none of the peers heard from",
        "ipsec-agent status --socket {run}/control.sock",
        "once every VM runs IPsec, remove `optional: true` on one VM after the other",
    ),
    "config-changed": (
        "{config} has changed since it was loaded, and waits for a reload",
        "ipsec-agent check {config}",
        "`ipsec-agent check {config}`, then `ipsec-agent reload --socket {run}/control.sock`",
    ),
    "guard-none": (
        "this VM has no guard (agent.guard: none); packets may leave in clear while charon is down"
        " or its policies are replaced",
        "ipsec-agent status --socket {run}/control.sock",
        "install nftables and remove agent.guard from the config",
    ),
    "reload-refused": (
        "the last reload was refused, so the earlier config stays in force: {config}:12:"
        " addons[0].properties.ipsec.ipsec_subnets[0]: '10.9.0.0/33' is not a subnet; write an"
        " address and a prefix length of at most 32, such as 10.0.0.0/20",
        "ipsec-agent check {config}",
        "see `ipsec-agent check {config}`; correct it, then `ipsec-agent reload --socket"
        " {run}/control.sock`",
    ),
    "guard-lowered": (
        "the guard was taken down by hand; only charon's policies block clear packets",
        "ipsec-agent guard up --config {config} --socket {run}/control.sock",
        "run `ipsec-agent guard up --config {config} --socket {run}/control.sock`, or restart the"
        " agent",
    ),
}


@pytest.mark.parametrize("code", SAYS)
def test_what_is_told(said: dict[str, Told], code: str) -> None:
    """The sentence, what to type and what else to do."""
    message, command, hint = (part.format(**said[""]["node"]) for part in SAYS[code])
    one = said[code][code]

    assert (one["message"], one["command"], one["hint"]) == (message, command, hint)


def test_a_certificate_that_soon_ends(said: dict[str, Told]) -> None:
    """It is told in every config that has it, with what shows it."""
    config = said[""]["node"]["config"]

    for code in SAYS:
        one = said[code]["certificate-expires"]
        assert one["message"] == (
            f"the instance certificate CN=VM expires on {ENDS:%Y-%m-%d}, in 5 days"
        )
        assert one["command"] == f"ipsec-agent certs show {config}"
