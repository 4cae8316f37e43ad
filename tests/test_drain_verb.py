"""`ipsec-agent drain`: its arguments, its config, and what a terminal and a log show."""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import structlog

from ipsec_agent.cli import main, parser
from ipsec_agent.core.drain import Job
from ipsec_agent.errors import AgentError
from ipsec_agent.host.jobs import Places
from ipsec_agent.host.own_process import CLEAR_LINE
from ipsec_agent.verbs import drain
from ipsec_agent.verbs.drain import Log, Terminal
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

NFS = Job("nfs", 12)


def chosen(*words: str) -> argparse.Namespace:
    """The arguments, parsed."""
    return parser().parse_args(["drain", *words])


class Warned(Log):
    """A log that keeps the warnings."""

    def __init__(self) -> None:
        super().__init__()
        self.warned: list[AgentError] = []

    def warns(self, error: AgentError) -> None:
        """Keep it."""
        self.warned.append(error)


def test_a_terminal_that_has_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    """IPsec ends all the same, though nobody reads what is told."""
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as gone:
        monkeypatch.setattr(sys, "stdout", gone)
        terminal = Terminal()
        terminal.waits((NFS,), 5.0)
        terminal.says("charon ends")


def test_config(tmp_path: Path) -> None:
    """Where things are, and how long to wait, is as the config says; arguments count more."""
    ca = make_ca()
    agent = {"run_dir": "/run/other", "vici_socket": "/run/charon.vici"}
    path = tmp_path / "ipsec.yml"
    path.write_text(manifest(leaf=make_leaf(ca), cas=[ca], agent=agent, stop_timeout=45))
    path.chmod(0o600)
    told = Warned()

    by_config = drain._order(chosen("--config", str(path)), Places(), told)
    by_words = drain._order(
        chosen("--config", str(path), "--timeout", "0", "--socket", "/x/c.sock", "--keep"),
        Places(),
        told,
    )

    assert (str(by_config.run_dir), by_config.socket) == ("/run/other", "/run/other/control.sock")
    assert (str(by_config.vici_socket), by_config.timeout) == ("/run/charon.vici", 45.0)
    assert not by_config.keep
    assert str(by_config.conf) == "/run/other/strongswan.conf"
    assert (str(by_words.run_dir), by_words.socket) == ("/run/other", "/x/c.sock")
    assert (by_words.timeout, by_words.keep) == (0.0, True)
    assert told.warned == []


def test_config_that_is_refused(tmp_path: Path) -> None:
    """It still says where things are: what ends is the agent and the charon that it is of."""
    ca = make_ca()
    agent = {"run_dir": "/run/other", "address": "nowhere"}
    path = tmp_path / "ipsec.yml"
    path.write_text(manifest(leaf=make_leaf(ca), cas=[ca], agent=agent))
    path.chmod(0o600)
    told = Warned()

    order = drain._order(chosen("--config", str(path)), Places(), told)

    assert (str(order.run_dir), order.socket) == ("/run/other", "/run/other/control.sock")
    assert len(told.warned) == 1


def test_config_that_cannot_be_read(tmp_path: Path) -> None:
    """IPsec must end all the same: by the defaults, or where the socket is; and it is told."""
    told, nowhere = Warned(), ("--config", str(tmp_path / "none.yml"))

    by_default = drain._order(chosen(*nowhere), Places(), told)
    by_socket = drain._order(chosen(*nowhere, "--socket", "/x/control.sock"), Places(), told)

    assert (str(by_default.run_dir), by_default.timeout) == ("/run/ipsec-agent", 30.0)
    assert by_default.socket == "/run/ipsec-agent/control.sock"
    assert str(by_default.vici_socket) == "/run/ipsec-agent/charon.vici"
    assert (str(by_socket.run_dir), by_socket.socket) == ("/x", "/x/control.sock")
    assert [str(one).startswith("there is no config at ") for one in told.warned] == [True, True]


@pytest.mark.parametrize("text", ["-1", "3601", "1.5", "", "x"])
def test_timeout(text: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Seconds within the limits of stop_timeout."""
    with pytest.raises(SystemExit):
        chosen("--timeout", text)

    assert "must be a whole number from 0 to 3600" in capsys.readouterr().err


def test_jobs(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """`--jobs` shows who runs, and does nothing else."""
    assert main(["drain", "--jobs", "--vcap", str(tmp_path)]) == 0
    assert capsys.readouterr().out == "no other job runs\n"
    path = tmp_path / "sys/run/nfs/nfs.pid"
    path.parent.mkdir(parents=True)
    with subprocess.Popen(["sleep", "60"]) as process:
        path.write_text(str(process.pid))
        assert main(["drain", "--jobs", "--vcap", str(tmp_path)]) == 0
        process.kill()

    assert capsys.readouterr().out == f"nfs (pid {process.pid})\n"


def test_root_only(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Nobody else can end charon; 1, and a sentence."""
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    assert main(["drain"]) == 1
    assert "needs root to end charon" in capsys.readouterr().err


def test_terminal(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """One line that changes and fits, and lines that stay."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    terminal.waits((NFS, Job("redis", 13)), 11.5)
    terminal.says("IPsec has ended; the guard stays", (NFS,))
    terminal.warns(AgentError("no config", hint="write one"))

    first, second, third, last = capsys.readouterr().out.split(CLEAR_LINE)
    assert first == ""
    assert second == "waits for nfs (pid 12) and redis (pid 1"
    assert third == "IPsec has ended; the guard stays; not waited for: nfs (pid 12)\n"
    assert last == "warning: no config (write one)\n"


def test_log() -> None:
    """What is new at once, the same again after a while; and whom it did not wait for."""
    with structlog.testing.capture_logs() as lines:
        log = Log()
        for left in (30.0, 29.5, 21.0, 20.0, 19.5):
            log.waits((NFS,), left)
        log.waits((), 19.0)
        log.says("charon ends", (NFS,))
        log.says("IPsec has ended; the guard stays")
        log.warns(AgentError("no config", hint="write one"))

    said = [line.get("message", "") for line in lines if line["event"] == "draining"]
    assert [one.rpartition("for ")[2] for one in said[:2]] == [
        "30 seconds at the most",
        "20 seconds at the most",
    ]
    assert said[2:] == ["waits for no other job any more"]
    assert json.loads(json.dumps(lines[3:])) == [
        {
            "event": "drain",
            "message": "charon ends",
            "not_waited_for": "nfs (pid 12)",
            "log_level": "warning",
        },
        {"event": "drain", "message": "IPsec has ended; the guard stays", "log_level": "info"},
        {
            "event": "drain failed",
            "message": "no config",
            "hint": "write one",
            "complaints": [],
            "log_level": "warning",
        },
    ]
