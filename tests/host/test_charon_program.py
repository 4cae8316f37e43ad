"""Where charon is looked for, and what is said where it is not; where it logs."""

import socket
import sys
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, CharonConfig
from ipsec_agent.host import charon_start
from ipsec_agent.host.charon_start import log_file, program_warnings, write_conf
from tests.configs import config


def test_a_program_that_is_not_there() -> None:
    """Who reloads is warned: charon runs still, and could not be started again."""
    (said,) = program_warnings("/usr/sbin/nochar")

    assert said.startswith("warning: charon is not at /usr/sbin/nochar, and its next start fails")
    assert "agent.charon.program" in said
    assert program_warnings(sys.executable) == ()


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A machine without journal and syslog, where the agent's run_dir is run/."""
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    monkeypatch.setattr(charon_start, "DEFAULT_RUN_DIR", run_dir)
    monkeypatch.setattr(charon_start, "LOG_DIRECTORY", tmp_path / "log")
    monkeypatch.setattr(charon_start, "JOURNAL", tmp_path / "journal")
    monkeypatch.setattr(charon_start, "SYSLOG", tmp_path / "syslog")
    return tmp_path


def written(place: Path, run_dir: str = "run", name: str = "charon-systemd", log: str = "") -> str:
    """The strongswan.conf for a charon of this name."""
    program = place / name
    program.write_text("#!/bin/false\n")
    program.chmod(0o755)
    charon = CharonConfig(program=str(program), log=log or CharonConfig().log)
    agent = AgentConfig(charon=charon, run_dir=str(place / run_dir))
    conf = place / "strongswan.conf"
    write_conf(conf, replace(config(), agent=agent), vici_socket=place / "vici")
    return conf.read_text()


@pytest.mark.parametrize("name", ["charon-systemd", "charon"])
def test_it_logs_to_a_file_where_nobody_hears_it(place: Path, name: str) -> None:
    """In the directory of logs, which is made, and which others cannot read."""
    assert f'path = "{place}/log/charon.log"' in written(place, name=name)
    assert (place / "log").stat().st_mode & 0o777 == 0o750


def test_two_agents_have_two_files(place: Path) -> None:
    """One with a run_dir of its own logs there."""
    (place / "other").mkdir()
    assert f'path = "{place}/other/charon.log"' in written(place, "other")
    assert log_file(place / "other") != log_file(place / "run")


@pytest.mark.parametrize(
    ("name", "listener"), [("charon-systemd", "journal"), ("charon", "syslog")]
)
def test_it_logs_to_who_hears_it(place: Path, name: str, listener: str) -> None:
    """Each build to what it can tell."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as heard:
        heard.bind(str(place / listener))
        assert "charon.log" not in written(place, name=name)


def test_a_file_of_the_operators(place: Path) -> None:
    """It is taken whoever listens."""
    assert 'path = "/var/log/mine"' in written(place, log="/var/log/mine")


def test_a_directory_that_cannot_be_made(place: Path) -> None:
    """It costs the log, and no start."""
    (place / "log").write_text("in the way")
    assert "charon.log" not in written(place)


@pytest.mark.parametrize(("setting", "mode"), [("plugins.x.secret", 0o600), ("user", 0o644)])
def test_who_may_read_the_settings(tmp_path: Path, setting: str, mode: int) -> None:
    """They may hold a password; a charon that runs as another user reads them itself."""
    settings = CharonConfig(program="/bin/true", settings=((setting, "abc"),))
    conf = tmp_path / "strongswan.conf"

    write_conf(conf, config(agent=AgentConfig(charon=settings)), vici_socket=tmp_path / "vici")

    assert "abc" in conf.read_text()
    assert conf.stat().st_mode & 0o777 == mode
