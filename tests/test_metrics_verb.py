"""`ipsec-agent metrics`: what it prints and writes, and its exit codes."""

import asyncio
import os
import stat
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.cli import main
from ipsec_agent.host.control import serve_control
from tests.exposition import from_older


async def answered(request: dict[str, Any]) -> dict[str, Any]:
    """An agent, as far as this verb sees it."""
    return {"metrics": f"format {request['format']} peers {request['peers']}\n"}


async def run(directory: Path, *words: str) -> int:
    """The exit code, with an agent that answers."""
    path = directory / "control.sock"
    async with serve_control(path, {"metrics": answered}, {}):
        return await asyncio.to_thread(main, ["metrics", "--socket", str(path), *words])


async def test_printed(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The agent's text, as it is."""
    assert await run(tmp_path) == 0
    assert await run(tmp_path, "--peers") == 0

    said = capsys.readouterr().out
    assert said == "format openmetrics peers False\nformat openmetrics peers True\n"


async def test_textfile(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """In the format that node_exporter reads, for all to read, and whole: another file."""
    place = tmp_path / "ipsec.prom"
    place.write_text("older\n")
    before = place.stat().st_ino

    assert await run(tmp_path, "--textfile", str(place)) == 0

    assert place.read_text() == "format text peers False\n"
    assert stat.S_IMODE(place.stat().st_mode) == 0o644
    assert place.stat().st_ino != before
    assert os.listdir(tmp_path) == ["ipsec.prom"]  # noqa: PTH208 - a test's directory
    assert capsys.readouterr().out == ""


async def test_textfile_on_standard_output(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """In the same format; a pipe with a name is refused, and stays."""
    assert await run(tmp_path, "--textfile", "-") == 0
    assert capsys.readouterr().out == "format text peers False\n"
    assert not (tmp_path / "-").exists()
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    assert await run(tmp_path, "--textfile", str(pipe)) == 1
    assert f"cannot write {pipe}: it is a pipe" in capsys.readouterr().err
    assert stat.S_ISFIFO(pipe.lstat().st_mode)


def test_no_agent(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """3, as `status`, and nothing on standard output."""
    assert main(["metrics", "--socket", str(tmp_path / "none")]) == 3

    said = capsys.readouterr()
    assert said.out == ""
    assert "no agent is running" in said.err


def test_no_agent_in_the_textfile(tmp_path: Path) -> None:
    """The file does not keep what an agent said that is gone: it says that none is up."""
    place = tmp_path / "ipsec.prom"
    words = ["metrics", "--socket", str(tmp_path / "none"), "--textfile", str(place)]

    assert main(words) == 3

    read = {one.name: one for one in from_older(place.read_text())}
    assert read["ipsec_agent_up"].samples[0].value == 0
    assert read["ipsec_agent_healthy"].samples[0].value == 0


async def test_a_directory_that_is_not_there(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One sentence, and 1."""
    assert await run(tmp_path, "--textfile", str(tmp_path / "none" / "ipsec.prom")) == 1

    assert "cannot write" in capsys.readouterr().err


def test_imports_little(tmp_path: Path) -> None:
    """The library is the agent's; this verb starts without it."""
    script = (
        "import sys; from ipsec_agent.cli import main;"
        f"main(['metrics', '--socket', '{tmp_path}/none']); print(' '.join(sys.modules))"
    )

    loaded = subprocess.run(
        [sys.executable, "-c", script], check=True, capture_output=True, text=True
    ).stdout.split()

    assert "ipsec_agent.verbs.metrics" in loaded
    assert not {"prometheus_client", "asyncio", "pyroute2", "structlog", "yaml"} & set(loaded)
