"""A kernel without XFRM's interface: the agent ends at once and says what to load."""

import subprocess
from pathlib import Path

import pytest

from tests.charon.nodes import network
from tests.lab.deployment import configure

pytestmark = [pytest.mark.esp, pytest.mark.timeout(200)]


def test_without_xfrm_user(tmp_path: Path) -> None:
    """With xfrm_user unloaded, one sentence names it."""
    if subprocess.run(["rmmod", "xfrm_user"], check=False, capture_output=True).returncode:
        pytest.skip("xfrm_user is built in here, or in use")
    try:
        with network(tmp_path, 1, "nx") as nodes:
            configure(nodes, [])
            code, said = nodes[0].run_and_fail()
    finally:
        subprocess.run(["modprobe", "xfrm_user"], check=True)

    assert code == 1
    assert "Traceback" not in said
    assert "XFRM" in said
    assert "xfrm_user" in said
