"""A fleet of eight goes from nothing to enforced by what `report` says, under an HTTP load."""

import contextlib
import functools
import io
import json
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.cli import main
from tests.charon.nodes import SCALE, Node, network, until
from tests.lab.deployment import configure
from tests.lab.rollout import MOST_WAIT, addresses_of, came_of, load, optional_soon, take

pytestmark = [pytest.mark.long, pytest.mark.timeout(1100)]

COUNT = 8
EVERY = float(SCALE)
"""Seconds between two requests of a pair."""

NOBODY = "enforcing now would cut off nobody that they know of"


class Operator:
    """Who knows the fleet's addresses by the report only."""

    def __init__(self, nodes: Mapping[str, Node], directory: Path) -> None:
        self._nodes = nodes
        self._directory = directory
        self._began = time.monotonic()
        self.installed: list[str] = []
        directory.mkdir()

    def report(self) -> dict[str, Any]:
        """Collect the files of the VMs that have an agent, and read them."""
        for address in self.installed:
            document = json.dumps(self._nodes[address].status())
            (self._directory / f"{address}.json").write_text(document)
        said = io.StringIO()
        with contextlib.redirect_stdout(said):
            code = main(["report", "--json", str(self._directory)])
        found: dict[str, Any] = json.loads(said.getvalue())
        assert not found["unreadable"]
        assert code == (0 if found["well"] else 1)
        return found

    def install(self, address: str) -> None:
        """As the report's finding asks: the agent, with `optional: true`."""
        node = self._nodes[address]
        configure([node], [], extra={"optional": True})
        node.start()
        optional_soon(node)
        self.installed.append(address)
        self.tell(f"optional on {address}")

    def tell(self, step: str) -> None:
        """Show how far the fleet is."""
        print(f"{time.monotonic() - self._began:5.0f} s  {step}", flush=True)  # noqa: T201 - a figure


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[dict[str, Node]]:
    """Eight VMs without IPsec, by address."""
    with network(tmp_path, COUNT, "rp") as nodes:
        yield dict(zip(addresses_of(nodes), nodes, strict=True))


def without_agent(found: dict[str, Any]) -> list[str]:
    """Of whom the report says that they would be cut off, and has no file."""
    named = {vm["name"] for vm in found["vms"]}
    return sorted({peer for _, peer in found["enforcing"]["cut_off"] if peer not in named})


def may_enforce(found: dict[str, Any]) -> bool:
    """Whether the report says so."""
    return any(NOBODY in one["message"] for one in found["findings"] if one["kind"] == "enforcing")


def enforced_on(operator: Operator, count: int) -> bool:
    """Whether the report says that IPsec is enforced on so many, and that these are well."""
    found = operator.report()
    ill = any(
        vm["problems"] for vm in found["vms"] if vm["name"] not in found["enforcing"]["optional"]
    )
    refused = any(one["kind"] == "clear" for one in found["findings"])
    return len(found["enforcing"]["optional"]) == COUNT - count and not ill and not refused


def test_by_what_the_report_says(fleet: dict[str, Node], tmp_path: Path) -> None:
    """Whom it misses gets an agent; nobody is cut off, so each VM enforces; no request fails."""
    operator = Operator(fleet, tmp_path / "status")
    with load(list(fleet.values()), EVERY) as jobs:
        operator.install(next(iter(fleet)))
        while len(operator.installed) < COUNT:
            missing = until(
                lambda: without_agent(operator.report()),
                lambda: f"another VM is missed: {operator.report()}",
                MOST_WAIT,
            )
            operator.install(missing[0])
        until(
            lambda: may_enforce(found := operator.report()) and not without_agent(found),
            lambda: f"nobody would be cut off: {operator.report()['findings']}",
            2 * MOST_WAIT,
        )
        operator.tell(NOBODY)
        for count in range(1, COUNT + 1):
            (address, *_) = operator.report()["enforcing"]["optional"]
            take(fleet[address], optional=False)
            until(
                functools.partial(enforced_on, operator, count),
                lambda: f"it is enforced there: {operator.report()}",
                MOST_WAIT,
            )
            operator.tell(f"enforced on {address}")
        found = operator.report()
        assert found["well"], found["findings"]
        assert found["verdict"].startswith("8 VMs: 8 healthy, 0 not, 0 pairs speak clear")
        results = came_of(jobs)
    assert [one["failed"] for one in results] == [[]] * COUNT
    assert all(count >= 3 for one in results for count in one["answered"].values()), results
