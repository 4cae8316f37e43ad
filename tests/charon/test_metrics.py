"""The metrics of a real agent, and its archive for support."""

import tarfile
import urllib.request
from functools import partial
from pathlib import Path

import pytest

from tests.charon.nodes import Node, until
from tests.charon.shared_manifest import configure
from tests.exposition import from_openmetrics
from tests.lab.namespaces import inside

pytestmark = pytest.mark.charon


def values(text: str) -> dict[str, float]:
    """The samples that have no label."""
    return {
        sample.name: sample.value
        for family in from_openmetrics(text)
        for sample in family.samples
        if not sample.labels
    }


def over_http(node: Node) -> str:
    """The page, asked for within the VM."""
    request = urllib.request.Request(
        "http://127.0.0.1:9815/metrics", headers={"Accept": "application/openmetrics-text"}
    )
    with inside(node.name), urllib.request.urlopen(request, timeout=10) as answer:
        text: str = answer.read().decode()
        return text


def served(node: Node) -> bool:
    """Whether there is a page."""
    try:
        return bool(over_http(node))
    except OSError:
        return False


def test_metrics_and_bundle(node: Node, tmp_path: Path) -> None:
    """The command and HTTP tell of charon and policies; the archive has them all, and no key."""
    node.up()
    shown = values(node.ask("metrics").stdout)
    assert shown["ipsec_agent_charon_up"] == 1
    assert shown["ipsec_agent_policies_desired"] == 8
    assert shown["ipsec_agent_policies_missing"] == 0

    configure(node, agent=node.agent_section(metrics="127.0.0.1:9815"))
    assert node.ask("reload").returncode == 0
    until(partial(served, node), "the metrics are served")
    assert values(over_http(node))["ipsec_agent_charon_up"] == 1

    file = tmp_path / "made.tar.gz"
    done = node.ask("bundle", "--config", str(node.config), str(file))
    assert done.returncode == 0
    with tarfile.open(file) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    assert {"status.json", "metrics.txt", "guard.json", "kernel/states.txt"} <= names
