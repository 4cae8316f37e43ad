"""The guest itself: nothing is left of it."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.charon.nodes import until
from tests.lab.guest import ROOT, UNFINISHED, in_guest

pytestmark = [pytest.mark.kernel, pytest.mark.timeout(300)]


def children() -> set[str]:
    """The processes that this one started and that still run."""
    own = Path("/proc/self/task")
    return {pid for task in own.iterdir() for pid in (task / "children").read_text().split()}


def test_deadline(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What outlasts its deadline is ended, said, and leaves no process behind."""
    before = children()

    assert in_guest(["sleep", "600"], tmp_path, 2) == UNFINISHED

    assert "guest: it did not" in capfd.readouterr().err
    assert children() == before


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_a_killed_guest_leaves_no_process(tmp_path: Path, number: signal.Signals) -> None:
    """Neither QEMU nor the file server outlives the program that started them."""
    program = subprocess.Popen(
        [
            *(sys.executable, "-c"),
            "import sys; from pathlib import Path; from tests.lab import guest;"
            " guest.has_esp = lambda: False; sys.exit(guest.main())",
            *("--results", str(tmp_path), "--", "sleep", "600"),
        ],
        cwd=ROOT,
        stdout=subprocess.DEVNULL,
    )
    try:
        tree = Path(f"/proc/{program.pid}/task/{program.pid}/children")
        pids = until(
            lambda: len(tree.read_text().split()) == 2 and tree.read_text().split(), "both"
        )
    finally:
        os.kill(program.pid, number)
        program.wait(20)

    assert program.returncode == {signal.SIGTERM: 143, signal.SIGKILL: -9}[number]
    until(lambda: not any(Path("/proc", pid).exists() for pid in pids), "both ended", 10)
