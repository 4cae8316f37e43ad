"""`status --wait`: it ends when the VM is as wanted, or in time, and says how it is then."""

import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.cli import main
from ipsec_agent.core.status import document
from ipsec_agent.errors import ControlError
from ipsec_agent.host.control_client import NotRunningError
from ipsec_agent.host.own_process import CLEAR_LINE
from ipsec_agent.verbs import status as status_verb
from ipsec_agent.verbs import status_wait
from tests.core.test_status import snapshot
from tests.vm import healthy_vm

ILL = {"code": "charon-down", "severity": "critical", "message": "m", "hint": "h", "since": 5}
STARTING = {"schema": 1, "state": "starting", "healthy": False, "problems": []}
DEGRADED = {"state": "degraded", "healthy": False, "problems": [ILL], "time": 65}
HEALTHY = {"state": "running", "healthy": True, "problems": []}
GONE = NotRunningError("no agent is running", hint="start it")
SOCKET = "/nowhere/control.sock"

Answer = dict[str, Any] | ControlError


class Agent:
    """An agent that answers one thing after the other, a second each, and its clock."""

    takes = 1.0

    def __init__(self, *answers: Answer) -> None:
        self.answers: Iterator[Answer] = iter(answers)
        self.last: Answer = GONE
        self.now = 100.0
        self.deadlines: list[float] = []

    def answer(self, socket: str, verb: str) -> dict[str, Any]:
        """The same for a question without a deadline of its own."""
        return self.ask(socket, verb, deadline=1)

    def ask(self, socket: str, verb: str, *, deadline: float) -> dict[str, Any]:
        """As the control client does; the last answer is given from then on."""
        assert (socket, verb) == (SOCKET, "status")
        self.deadlines.append(deadline)
        self.now += self.takes
        self.last = next(self.answers, self.last)
        if isinstance(self.last, ControlError):
            raise self.last
        return {"status": self.last}

    def monotonic(self) -> float:
        """Seconds."""
        return self.now

    def sleep(self, seconds: float) -> None:
        """Let them pass."""
        assert 0 < seconds <= status_wait.EACH
        self.now += seconds

    def wait(self, patch: pytest.MonkeyPatch, *words: str) -> int:
        """The verb's exit code."""
        patch.setattr(status_wait, "ask", self.ask)
        patch.setattr(status_wait, "time", self)
        return main(["status", "--socket", SOCKET, "--wait", *words])


def test_healthy(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """It asks again, once a second, until the answer is good, whatever failed before."""
    agent = Agent(GONE, ControlError("busy"), STARTING, DEGRADED, HEALTHY)

    assert agent.wait(monkeypatch, "healthy", "--timeout", "30") == 0
    said = capsys.readouterr()
    assert (said.out, said.err) == ("ipsec-agent : running, healthy\n", "")
    assert agent.now == 109
    assert max(agent.deadlines) <= status_wait.ANSWER


def test_running(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A VM that is degraded enforces IPsec, and what is said is no failure; one that starts, or
    drains, does not count.
    """
    info = {**ILL, "code": "small", "severity": "info"}
    degraded = {**DEGRADED, "version": "0.2.0", "problems": [info, {**ILL, "severity": "error"}]}
    assert Agent(STARTING, degraded).wait(monkeypatch, "running", "--timeout", "9") == 0
    said = capsys.readouterr()
    assert said.out == "ipsec-agent 0.2.0: runs, as waited for; not healthy: charon-down\n"
    assert said.err == ""
    assert Agent(HEALTHY).wait(monkeypatch, "running") == 0
    assert capsys.readouterr().out == "ipsec-agent : running, healthy\n"
    draining = {**HEALTHY, "state": "draining"}
    assert Agent(draining).wait(monkeypatch, "running", "--timeout", "3") == 1


def test_too_late(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The last verdict and the problems are told, and it does not take longer than was given."""
    agent = Agent(DEGRADED)

    assert agent.wait(monkeypatch, "healthy", "--timeout", "7") == 1
    assert agent.now <= 100 + 7 + 1
    said = capsys.readouterr()
    assert said.out == (
        "ipsec-agent : degraded, NOT HEALTHY\n  CRITICAL charon-down: m\n    for 60 s. h\n"
    )
    assert said.err == "ipsec-agent: not healthy within 7 s\n"
    assert Agent(DEGRADED).wait(monkeypatch, "healthy", "--timeout", "0", "--json") == 1
    assert json.loads(capsys.readouterr().out) == DEGRADED


def test_it_ends_in_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last pause is as long as what is left."""
    agent = Agent(DEGRADED)
    agent.takes = 0.4

    assert agent.wait(monkeypatch, "healthy", "--timeout", "2") == 1
    assert agent.now == pytest.approx(102.4)


def test_no_agent(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """The exit code is that of `status`, and so is what is said."""
    assert Agent(GONE).wait(monkeypatch, "healthy", "--timeout", "2") == 3
    said = capsys.readouterr().err
    assert said == (
        "ipsec-agent: not healthy within 2 s\nipsec-agent: no agent is running\n  hint: start it\n"
    )
    assert Agent(ControlError("busy")).wait(monkeypatch, "healthy", "--timeout", "2") == 1


def test_interrupted(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """Ctrl-C ends it without a traceback, and leaves nothing of the line of progress."""
    agent = Agent(DEGRADED)

    def interrupt(_seconds: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    monkeypatch.setattr(agent, "sleep", interrupt)
    monkeypatch.setenv("COLUMNS", "60")
    assert agent.wait(monkeypatch, "healthy") == 130
    line = f"{CLEAR_LINE}waiting for healthy, 1 s: degraded, charon-down"
    assert capsys.readouterr().err == line + CLEAR_LINE


@pytest.mark.parametrize("words", ["--peers", "--events", "--filter up", "10.0.0.9", ""])
def test_before_the_first_look(
    words: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever was asked for, the text says that the agent starts."""
    monkeypatch.setattr(status_verb, "ask", Agent(STARTING).answer)

    assert main(["status", "--socket", SOCKET, *words.split()]) == 1
    assert capsys.readouterr().out == "ipsec-agent : starting, NOT HEALTHY\n"


def test_no_peer_as_json(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """For a program, too, it is said why an address is no peer: 1, and one document."""
    monkeypatch.setattr(status_verb, "ask", Agent(document(snapshot(healthy_vm()))).answer)

    assert main(["status", "--socket", SOCKET, "10.0.0.5", "--json"]) == 1

    said = capsys.readouterr()
    shown = json.loads(said.out)
    assert shown["error"] == "10.0.0.5 is not a peer: it is this VM's own address"
    assert f"`ipsec-agent status --peers --socket {SOCKET}`" in shown["hint"]
    assert said.err == f"ipsec-agent: {shown['error']}\n  hint: {shown['hint']}\n"


def test_what_cannot_be_together(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Options of which one would be passed over are refused."""
    nowhere = ["--socket", str(tmp_path / "none")]
    for words, says in (
        (["--wait", "healthy", "--watch"], "--wait and --watch cannot be together"),
        (["10.0.0.9", "--peers"], "cannot be together"),
        (["10.0.0.9", "--filter", "up"], "cannot be together"),
        (["--timeout", "9"], "write `ipsec-agent status --wait healthy --timeout 9 --socket /"),
        (["--json", "--timeout", "0"], "--timeout bounds --wait, which is missing"),
    ):
        assert main(["status", *words, *nowhere]) == 2
        said = capsys.readouterr()
        assert says in said.err
        assert said.out == ""
    for seconds in ("-1", "3601", "1.5", ""):
        with pytest.raises(SystemExit):
            main(["status", "--wait", "healthy", "--timeout", seconds])
