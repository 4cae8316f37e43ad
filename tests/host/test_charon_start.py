"""A charon that listens has not started yet: the first answer tells."""

import os
import sys
import time
from pathlib import Path

import pytest

from ipsec_agent.errors import CharonStartError
from ipsec_agent.host import charon_start
from ipsec_agent.host.charon_start import start_charon
from tests.charon.nodes import DEADLINE

ENDS = """\
#!{python} -I
import os, socket, sys, time
with socket.socket(socket.AF_UNIX) as listener:
    listener.bind(os.path.dirname(os.environ["STRONGSWAN_CONF"]) + "/charon.vici")
    listener.listen()
    time.sleep({seconds})
sys.exit("charon already running")
"""
"""As the classic charon does where its pid file is somebody else's."""


async def start(directory: Path, seconds: float) -> int:
    """Start such a program; its pid."""
    program = directory / "charon"
    program.write_text(ENDS.format(python=sys.executable, seconds=seconds))
    program.chmod(0o755)
    found = await start_charon(
        str(program),
        conf_path=directory / "strongswan.conf",
        run_dir=directory,
        vici_socket=directory / "charon.vici",
        library_path="",
        deadline=DEADLINE,
    )
    return found.pid


async def test_it_ends_before_it_answers(tmp_path: Path) -> None:
    """It is told with its last words, and not taken for one that has started."""
    with pytest.raises(CharonStartError, match=r"ended at once .*: charon already running"):
        await start(tmp_path, 0.3)


async def test_it_hangs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A start does not wait for the answer for long: the next pass deals with one that hangs."""
    monkeypatch.setattr(charon_start, "ANSWERS_WITHIN", 0.1)
    began = time.monotonic()
    pid = await start(tmp_path, 60)
    try:
        assert time.monotonic() - began < DEADLINE / 2
    finally:
        os.kill(pid, 9)
        os.waitpid(pid, 0)  # noqa: ASYNC222 - it has been killed
