"""docs/metrics.md and contrib/: what they name is what the agent says."""

import json
import re
import shutil
import subprocess
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import yaml

from ipsec_agent.core.metrics import PREFIX, families
from ipsec_agent.core.problems.problem import ADVICE
from ipsec_agent.core.status import document
from ipsec_agent.host.openmetrics import render
from tests.core.test_optional import loose_vm, with_clear
from tests.core.test_status import snapshot
from tests.data_files import ROOT
from tests.exposition import from_openmetrics
from tests.test_docs import anchors, page
from tests.vm import PEER, healthy_vm, with_sa

ALERTS = ROOT / "contrib/prometheus/alerts.yml"
DASHBOARD = ROOT / "contrib/grafana/dashboard.json"
PROMTOOL = shutil.which("promtool")
NAME = re.compile(rf"\b{PREFIX}[a-z_]+\b")


def shown(*, peers: bool) -> dict[str, set[str]]:
    """Every sample's name without the prefix, with its labels, where all families have some."""
    status = document(snapshot(with_sa(with_clear(loose_vm()))))
    peer = {**status["peers"][0], "problem": "peer-silent", "idle_in": 4}
    status |= {"counters": {"XfrmInError": 1}, "peers": [peer]}
    assert status["problems"]
    text, _ = render(families(status, peers=peers), openmetrics=True, process=True)
    return {
        sample.name.removeprefix(PREFIX): set(sample.labels)
        for family in from_openmetrics(text)
        for sample in family.samples
    }


def told(heading: str) -> Iterator[tuple[str, set[str], str]]:
    """Name, labels and kind of each row below a heading of docs/metrics.md."""
    _, _, below = page("metrics.md").partition(f"## {heading}\n")
    table = re.search(r"(?:^\|.*\n)+", below, flags=re.MULTILINE)
    assert table
    for row in table[0].splitlines()[2:]:
        _, name, labels, kind, _, _ = (cell.strip() for cell in row.split("|"))
        yield name.strip("`"), set(re.findall(r"`(\w+)`", labels)), kind


@pytest.mark.parametrize(("heading", "peers"), [("Names", False), ("Each peer", True)])
def test_every_name_has_its_row(heading: str, peers: bool) -> None:
    """With its labels and its kind, which the end of the name shows."""
    rows = {name: (labels, kind) for name, labels, kind in told(heading)}
    found = shown(peers=peers)
    if peers:
        found = {name: labels for name, labels in found.items() if "peer" in labels}

    assert {name: labels for name, (labels, _) in rows.items()} == found
    for name, (_, kind) in rows.items():
        ends = {"_total": "counter", "_info": "info"}
        assert kind == next((k for end, k in ends.items() if name.endswith(end)), "gauge"), name


def test_the_number_of_series() -> None:
    """As many as docs/metrics.md says, and for each peer, too."""
    (least, most, each) = map(
        int,
        re.findall(r"Between (\d+) and (\d+),.*\n?.*by about (\d+) for each", page("metrics.md"))[
            0
        ],
    )
    one = with_sa(healthy_vm())
    two = with_sa(one, str(PEER + 1))

    def series(vm: Any, *, peers: bool) -> int:
        made = families(document(snapshot(vm)), peers=peers)
        text, _ = render(made, openmetrics=True, process=True)
        return sum(not line.startswith("#") for line in text.splitlines())

    assert least <= series(one, peers=False) <= most
    assert abs(series(two, peers=True) - series(one, peers=True) - each) <= 2


def rules() -> list[dict[str, Any]]:
    """The alerts."""
    (group,) = yaml.safe_load(ALERTS.read_text())["groups"]
    return list(group["rules"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_alert(rule: dict[str, Any]) -> None:
    """Each has a summary, a runbook entry that is there, a row in docs/, and names that exist."""
    assert rule["annotations"]["summary"]
    target = rule["annotations"]["runbook_url"]
    name, _, anchor = target.partition("#")
    headings = set(anchors((ROOT / name).read_text()))
    for literal in re.sub(r"{{[^}]*}}", " ", anchor).split():
        assert literal in headings
    assert anchor == anchor.strip()
    assert NAME.findall(rule["expr"])
    assert {one.removeprefix(PREFIX) for one in NAME.findall(rule["expr"])} <= set(
        shown(peers=False)
    )
    severity = rule["labels"]["severity"]
    assert re.search(
        rf"^\| `{rule['alert']}` \| .+ \| {severity} \|$", page("metrics.md"), re.MULTILINE
    )


def test_a_healthy_vm_alerts_nobody() -> None:
    """A warning that is advice stays for ever; optional mode has an alert of its own."""
    (rule,) = (one for one in rules() if one["alert"] == "IpsecWarning")
    (left_out,) = re.findall(r'code!~"([^"]+)"', rule["expr"])
    assert sorted(left_out.split("|")) == sorted({*ADVICE, "optional-on"})


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
@pytest.mark.parametrize("name", ["alerts_test.yml", "days_test.yml"])
def test_alerts_fire(name: str, tmp_path: Path) -> None:
    """promtool takes the rules, and each fires when it should and not before."""
    shutil.copy(ALERTS, tmp_path)
    shutil.copy(ROOT / "tests/prometheus" / name, tmp_path)
    tests = yaml.safe_load((tmp_path / name).read_text())["tests"]
    assert {case["alertname"] for test in tests for case in test["alert_rule_test"]}
    for words in (("check", "rules", ALERTS.name), ("test", "rules", name)):
        done = subprocess.run(
            [str(PROMTOOL), *words],
            check=False, cwd=tmp_path, capture_output=True, text=True, timeout=120,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_alert_is_tried() -> None:
    """One that fires is expected somewhere in tests/prometheus."""
    fired = {
        case["alertname"]
        for path in (ROOT / "tests/prometheus").glob("*_test.yml")
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test["alert_rule_test"]
        if case.get("exp_alerts")
    }
    assert fired >= {rule["alert"] for rule in rules()}


def test_dashboard() -> None:
    """Its queries use names that exist; its panels have places of their own."""
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    queries += [
        one["query"]["query"] for one in board["templating"]["list"] if one["name"] == "instance"
    ]

    for query in queries:
        names = {one.removeprefix(PREFIX) for one in NAME.findall(query)}
        assert names, query
        assert names <= set(shown(peers=False)), query
        assert query.count("(") == query.count(")")
    assert len({panel["id"] for panel in board["panels"]}) == len(board["panels"])
    for one, other in pairwise(
        sorted((p["gridPos"]["y"], p["gridPos"]["x"], p["gridPos"]["w"]) for p in board["panels"])
    ):
        assert one[0] < other[0] or one[1] + one[2] <= other[1]


@pytest.mark.skipif(PROMTOOL is None, reason="promtool is not installed (Debian: prometheus)")
def test_queries_of_the_dashboard(tmp_path: Path) -> None:
    """Prometheus can parse each."""
    board = json.loads(DASHBOARD.read_text())
    queries = [target["expr"] for panel in board["panels"] for target in panel["targets"]]
    group = {"name": "x", "rules": [{"record": f"x:{n}", "expr": q} for n, q in enumerate(queries)]}
    (tmp_path / "queries.yml").write_text(yaml.safe_dump({"groups": [group]}))
    done = subprocess.run(
        [str(PROMTOOL), "check", "rules", "queries.yml"],
        check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout + done.stderr
