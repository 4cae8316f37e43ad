"""Optional mode: a fleet goes from nothing to optional to enforced and back under an HTTP load."""

import functools
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import SCALE, Node, complaints, ip, network, until
from tests.lab.bed import enforces
from tests.lab.deployment import A, B, configure, hub_of
from tests.lab.judge import assert_only_esp
from tests.lab.rollout import MOST_WAIT, came_of, load, optional_soon, run, take
from tests.lab.traffic import ping
from tests.lab.wire import Capture

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

VMS = tuple(f"10.9.0.{number}" for number in range(1, 5))


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[list[Node]]:
    """Four VMs without IPsec."""
    with network(tmp_path, len(VMS), "op") as nodes:
        yield nodes


def encrypts(node: Node, with_whom: set[str]) -> bool:
    """Whether a VM has an SA with each of these."""
    peers = node.status().get("peers", ())
    return with_whom <= {peer["address"] for peer in peers if peer["state"] == "installed"}


def without_ipsec(node: Node) -> None:
    """As the operator takes it away: first the traps go, then the guard."""
    run(node, "stop", "--socket", str(node.run_dir / "control.sock"))
    run(node, "guard", "down", "--config", str(node.config))


def no_sas(node: Node) -> bool:
    """Whether a VM's kernel has no SA, not even one that is asked for."""
    return not ip("xfrm", "state", netns=node.name)


def told(step: str, began: float) -> None:
    """Show how far the fleet is."""
    print(f"{step}: {time.monotonic() - began:.0f} s", flush=True)  # noqa: T201 - a figure


def test_a_fleet_there_and_back(fleet: list[Node]) -> None:
    """Nothing, optional, enforced, optional, nothing; one VM at a time; no request fails."""
    began = time.monotonic()
    with load(fleet) as jobs:
        for count, node in enumerate(fleet, 1):
            configure([node], [], extra={"optional": True})
            node.start()
            optional_soon(node)
            speaks = functools.partial(encrypts, node, set(VMS[: count - 1]))
            until(speaks, "ESP with them", MOST_WAIT)
            told(f"optional {count}", began)
        first = fleet[0]
        status = until(
            lambda: shown if not (shown := first.status())["optional"]["would_cut_off"] else None,
            lambda: f"nobody would be cut off: {first.status().get('optional')}",
            MOST_WAIT,
        )
        assert not status["healthy"]
        for node in fleet:
            take(node, optional=False)
        told("enforced", began)
        for node in fleet:
            until(functools.partial(enforces, node), f"enforced: {node.status()}", MOST_WAIT)
            assert "level use" not in ip("xfrm", "policy", netns=node.name)
        with Capture(hub_of(fleet)) as capture:
            flow = ping(first.name, B, 5)
            assert_only_esp(capture, first.name, A, B, flow, at_least=5, esp=10)
        for node in fleet:
            take(node, optional=True)
        told("optional again", began)
        for node in fleet:
            without_ipsec(node)
        told("nothing", began)
        for node in fleet:
            nothing = functools.partial(no_sas, node)
            until(nothing, "the last SA is gone", MOST_WAIT)
        time.sleep(SCALE)
        found = came_of(jobs)
    told("end", began)
    assert [one["failed"] for one in found] == [[]] * len(VMS)
    assert all(count >= 10 for one in found for count in one["answered"].values()), found


def test_enforced_beside_optional_and_clear(fleet: list[Node]) -> None:
    """An enforced VM and an optional one speak ESP; one without IPsec is cut off."""
    enforced, optional, bare, _ = fleet
    configure([enforced], [])
    configure([optional], [], extra={"optional": True})
    for node in (enforced, optional):
        node.start()
    optional_soon(optional)
    until(lambda: enforced.status().get("state") in {"running", "degraded"}, "runs", MOST_WAIT)
    with Capture(hub_of(fleet)) as capture:
        until(lambda: _answers(enforced, B), "ESP", MOST_WAIT)
        flow = ping(enforced.name, B, 5)
        assert_only_esp(capture, enforced.name, A, B, flow, at_least=5, esp=10)

    assert until(lambda: _answers(optional, VMS[2]), "clear", MOST_WAIT)
    assert not _answers(bare, A)
    until(lambda: "clear-received" in complaints(enforced.status()), "A says it", MOST_WAIT)
    (cut,) = until(lambda: optional.status()["optional"]["would_cut_off"], "B says it", MOST_WAIT)
    assert (cut["address"], cut["encrypted"]) == (VMS[2], 0)


def _answers(node: Node, address: str) -> bool:
    done = subprocess.run(
        node.command("ping", "-n", "-q", "-c", "3", "-i", "0.3", "-W", "3", address),
        check=False,
        capture_output=True,
        timeout=60,
    )
    return done.returncode == 0
