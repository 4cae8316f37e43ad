"""The log has a problem's severity, subject and hint; the journal reads a priority on each line."""

import json
import os
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from ipsec_agent.core.config import Config
from ipsec_agent.reconcile import Reconciler
from tests.configs import FACTS, config
from tests.fakes import FakeMachine, network

SCRIPT = """
import structlog
from ipsec_agent.host.own_process import WARNING, complain, read_by_journal
from ipsec_agent.log import set_up
set_up(journal=read_by_journal())
log = structlog.get_logger("x")
for level in ("info", "warning", "error", "critical"):
    getattr(log, level)("said")
complain("refused\\n  hint: two\\n")
complain("mind\\n", WARNING)
"""

ABOUT_ANOTHER = """
import structlog
from ipsec_agent.core.commands import About
from ipsec_agent.log import ABOUT, set_up
set_up()
ABOUT.set(About("/a.yml", "/s"))
structlog.get_logger("x").info(
    "said",
    message="`ipsec-agent guard up` is due",
    hint="run `ipsec-agent reload`",
    what="`ipsec-agent reload`",
)
"""


def said(*, journal: bool) -> list[str]:
    """What is written to a stderr that the journal reads, by what JOURNAL_STREAM says, or not."""
    reads, writes = os.pipe()
    found = os.fstat(writes)
    inode = found.st_ino if journal else found.st_ino + 1
    try:
        subprocess.run(
            [sys.executable, "-c", SCRIPT],
            env={**os.environ, "JOURNAL_STREAM": f"{found.st_dev}:{inode}"},
            stderr=writes,
            check=True,
            timeout=60,
        )
    finally:
        os.close(writes)
    with os.fdopen(reads) as pipe:
        return pipe.read().splitlines()


def test_priorities() -> None:
    """Each line has its own, so that `journalctl -p err` finds errors and refusals."""
    lines = said(journal=True)

    assert [line[:3] for line in lines] == ["<6>", "<4>", "<3>", "<2>", "<3>", "<3>", "<4>"]
    assert json.loads(lines[2][3:])["level"] == "error"
    assert lines[4:] == ["<3>refused", "<3>  hint: two", "<4>mind"]


def test_no_priorities_in_a_file() -> None:
    """The variable is inherited by what writes to a file or a terminal, and means nothing there."""
    lines = said(journal=False)

    assert [json.loads(line)["level"] for line in lines[:4]] == [
        *("info", "warning", "error", "critical")
    ]
    assert lines[4:] == ["refused", "  hint: two", "mind"]


def test_on_a_terminal() -> None:
    """Nothing that a name of somebody's has in it is obeyed there."""
    leader, follower = os.openpty()
    script = """
import structlog
from ipsec_agent.log import set_up
set_up()
structlog.get_logger("x").info("said", message="a\\x1b[2Jb \\udcff", many=["\\x1b[2Jc"])
"""
    try:
        subprocess.run([sys.executable, "-c", script], stderr=follower, check=True, timeout=60)
        told = os.read(leader, 65536)
    finally:
        os.close(follower)
        os.close(leader)

    assert b"said" in told
    assert b"\x1b[2J" not in told
    assert b"\\xff" in told


async def test_problems() -> None:
    """Each has its severity as level, subject and hint; again once it is worse, or solved."""
    machine = FakeMachine(network("10.0.0.5"))
    with capture_logs() as logged:
        loop = Reconciler(machine, expiring(5), lambda _snapshot: None)
        for days in (5, 4, 2, 300):
            loop.adopt(expiring(days))
            await loop.one_pass()

    told = [dict(one) for one in logged if one.get("subject") == "instance 01"]
    assert [(one["log_level"], one["event"]) for one in told] == [
        ("error", "problem"),
        ("critical", "problem"),
        ("info", "problem solved"),
    ]
    assert told[1]["code"] == "certificate-expires"
    assert told[1]["message"].endswith(", in 1 day")
    assert told[1]["hint"].startswith("rotate it")


def expiring(days: int) -> Config:
    """A config whose certificate ends so soon."""
    return config(facts=replace(FACTS, not_after=datetime.now(UTC) + timedelta(days=days)))


def test_commands(capfd: pytest.CaptureFixture[str]) -> None:
    """Those in the log are about the config and the socket of the agent that logs."""
    subprocess.run([sys.executable, "-c", ABOUT_ANOTHER], check=True, timeout=60)

    said = json.loads(capfd.readouterr().err)
    assert said["hint"] == "run `ipsec-agent reload --socket /s`"
    assert said["message"] == "`ipsec-agent guard up --config /a.yml --socket /s` is due"
    assert said["what"] == "`ipsec-agent reload`"
