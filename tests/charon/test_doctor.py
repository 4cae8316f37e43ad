"""`doctor` beside a running agent: what that reports is a finding, once."""

import json
import subprocess
from pathlib import Path

import pytest

from tests.charon.nodes import AGENT, NO_ESP, network
from tests.lab.deployment import configure
from tests.lab.guest import has_esp

pytestmark = [pytest.mark.charon, pytest.mark.timeout(120)]


@pytest.mark.skipif(has_esp(), reason="this kernel has ESP")
def test_beside_an_agent(tmp_path: Path) -> None:
    """The one problem of this machine is told once, with its command; the guard is well."""
    with network(tmp_path, 1, "da") as (node,):
        configure([node], [])
        node.up()
        socket = str(node.run_dir / "control.sock")
        done = subprocess.run(
            node.command(*AGENT, "doctor", "--json", "--socket", socket),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        # Its socket is found by its config.
        same = subprocess.run(
            node.command(*AGENT, "doctor", "--json", "--config", str(node.config)),
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
        )
        said = node.ask("doctor").stdout

    assert done.returncode == 1, done.stderr
    checks = {one["name"]: one for one in json.loads(done.stdout)["checks"]}
    assert {one["code"] for one in checks["problems"]["findings"]} == {NO_ESP}
    assert all(one["command"] for one in checks["problems"]["findings"])
    # The config is that of the agent, which its status names.
    well = ("config", "agent", "guard", "plugins", "unread")
    assert {name: checks[name]["state"] for name in well} == dict.fromkeys(well, "ok"), checks
    assert checks["machine"]["findings"] == checks["problems"]["findings"]
    assert json.loads(same.stdout)["checks"] == json.loads(done.stdout)["checks"]
    assert said.startswith(f"CRITICAL {NO_ESP}: this kernel cannot do ESP")
    for line in {one["message"] for one in checks["machine"]["findings"]}:
        assert said.count(line) == 1
    assert "\nok       guard: the guard is up" in said
