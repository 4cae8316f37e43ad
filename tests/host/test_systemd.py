"""systemd as the agent sees it: what it is told, and what it answers of charon's unit."""

import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from ipsec_agent.errors import CharonStartError, CharonTimeoutError
from ipsec_agent.host.systemd import (
    UnitState,
    charon_unit,
    notify,
    notify_reloading,
    start_unit,
    stop_unit,
    unit_state,
    watchdog_interval,
)

UNIT = "ipsec-agent-charon.service"


@pytest.fixture
def manager(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[socket.socket]:
    """The socket of a service manager."""
    path = tmp_path / "notify"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(str(path))
        opened.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", str(path))
        yield opened


@pytest.fixture
def systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program of that name, found first, which a test writes; `calls` says how it was called."""
    program = tmp_path / "systemctl"
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    return program


def script(program: Path, body: str) -> None:
    """Make the program do this."""
    program.write_text(f'#!/bin/sh\necho "$@" >> {program.with_name("calls")}\n{body}\n')
    program.chmod(0o755)


def runs(program: Path) -> bool:
    """Whether a process is there that was started as this program."""
    commands = (it.info["cmdline"] or () for it in psutil.process_iter(["cmdline"]))
    return any(str(program) in command for command in commands)


def test_assignments_come_in_one_datagram(manager: socket.socket) -> None:
    """As sd_notify(3) wants it of RELOADING and its time."""
    notify("READY=1", "STATUS=running")
    assert manager.recv(4096) == b"READY=1\nSTATUS=running"

    before = time.monotonic_ns() // 1000
    notify_reloading()
    state, stamp = manager.recv(4096).decode().split("\n")
    assert state == "RELOADING=1"
    assert before <= int(stamp.removeprefix("MONOTONIC_USEC=")) <= time.monotonic_ns() // 1000


def test_a_status_of_anybody(manager: socket.socket) -> None:
    """A path that is no UTF-8 raises nothing, and no line in it is an assignment of its own."""
    notify("STATUS=cannot read /etc/\udcff\nMAINPID=1", "WATCHDOG=1")

    said = manager.recv(4096).decode().split("\n")

    assert said == ["STATUS=cannot read /etc/\\xff\N{REPLACEMENT CHARACTER}MAINPID=1", "WATCHDOG=1"]


def test_an_abstract_socket(monkeypatch: pytest.MonkeyPatch) -> None:
    """A leading @ stands for a NUL byte."""
    name = f"ipsec-agent-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as opened:
        opened.bind(f"\0{name}")
        opened.settimeout(1)
        monkeypatch.setenv("NOTIFY_SOCKET", f"@{name}")

        notify("WATCHDOG=1")

        assert opened.recv(64) == b"WATCHDOG=1"


def test_a_manager_that_takes_nothing_keeps_nobody_waiting(manager: socket.socket) -> None:
    """Its queue is full: the next word is lost, and the loop goes on."""
    began = time.monotonic()
    for _ in range(2000):
        notify("WATCHDOG=1")

    assert time.monotonic() - began < 1


def test_no_manager(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Without one, or where it has gone, notifying does nothing."""
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", str(tmp_path / "gone"))
    notify("READY=1")


@pytest.mark.parametrize(
    ("usec", "pid", "wanted"),
    [
        ("60000000", "own", 60.0),
        ("500000", "", 0.5),
        ("60000000", "1", None),
        ("", "", None),
        ("soon", "", None),
    ],
)
def test_watchdog_interval(
    monkeypatch: pytest.MonkeyPatch, usec: str, pid: str, wanted: float | None
) -> None:
    """Only where it is meant for this very process."""
    monkeypatch.setenv("WATCHDOG_USEC", usec)
    monkeypatch.setenv("WATCHDOG_PID", str(os.getpid()) if pid == "own" else pid)

    assert watchdog_interval() == wanted


def test_charon_unit(monkeypatch: pytest.MonkeyPatch) -> None:
    """The environment names it; empty is none."""
    monkeypatch.setenv("IPSEC_AGENT_CHARON_UNIT", UNIT)
    assert charon_unit() == UNIT
    monkeypatch.setenv("IPSEC_AGENT_CHARON_UNIT", "")
    assert charon_unit() is None
    monkeypatch.delenv("IPSEC_AGENT_CHARON_UNIT")
    assert charon_unit() is None


async def test_start_waits_for_nothing_and_undoes_no_stop(systemctl: Path) -> None:
    """It leaves a job behind, and refuses where another one stands against it."""
    script(systemctl, "exit 0")

    await start_unit(UNIT, deadline=5)

    called = systemctl.with_name("calls").read_text().split()
    assert called[-4:] == ["start", "--no-block", "--job-mode=fail", UNIT]


@pytest.mark.parametrize(
    ("said", "hint"),
    [
        (f"Failed to start {UNIT}: Unit {UNIT} not found.", "daemon-reload"),
        (
            f"Failed to start {UNIT}: Transaction for {UNIT}/start is destructive"
            " (poweroff.target has 'start' job queued).",
            "it is being stopped",
        ),
        (f"Failed to start {UNIT}: Access denied", f"systemctl status {UNIT}"),
        ("", f"systemctl status {UNIT}"),
    ],
)
async def test_a_refusal_is_one_sentence(systemctl: Path, said: str, hint: str) -> None:
    """systemd's own first line, and what to do about it."""
    script(systemctl, f"cat >&2 <<'END'\n{said}\nmore\nEND\nexit 1" if said else "exit 1")

    with pytest.raises(CharonStartError) as caught:
        await start_unit(UNIT, deadline=5)

    assert caught.value.message == (f"systemd did not start {UNIT}: {said or 'no reason given'}")
    assert hint in caught.value.hint


async def test_a_systemd_that_hangs(systemctl: Path) -> None:
    """The deadline holds, the program is gone, and a stop that takes too long has its own error."""
    pipe = systemctl.with_name("pipe")
    os.mkfifo(pipe)
    script(systemctl, f"exec 3<>{pipe}; read -r _ <&3")
    began = time.monotonic()

    with pytest.raises(CharonStartError, match=r"did not answer within 0\.3 s"):
        await start_unit(UNIT, deadline=0.3)
    assert not runs(systemctl)
    with pytest.raises(CharonTimeoutError, match=r"did not end within 0\.3 s"):
        await stop_unit(UNIT, deadline=0.3)

    assert time.monotonic() - began < 5


async def test_without_systemctl(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One sentence, no traceback."""
    monkeypatch.setattr("ipsec_agent.host.program.PLACES", "")
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(CharonStartError, match="not installed"):
        await start_unit(UNIT, deadline=5)


async def test_unit_state(systemctl: Path) -> None:
    """What `systemctl show` says, as a record."""
    script(
        systemctl,
        "printf 'Result=signal\\nMainPID=0\\nExecMainStatus=9\\n'\n"
        "printf 'LoadState=loaded\\nActiveState=activating\\nSubState=auto-restart\\n'",
    )

    assert await unit_state(UNIT, deadline=5) == UnitState(
        "activating", "auto-restart", "signal", 0, 9
    )


@pytest.mark.parametrize("load", ["not-found", "masked", "bad-setting"])
async def test_a_unit_that_is_none(systemctl: Path, load: str) -> None:
    """It is said which, and what to do."""
    script(systemctl, f"echo LoadState={load}; echo ActiveState=inactive")

    with pytest.raises(CharonStartError, match=load) as caught:
        await unit_state(UNIT, deadline=5)
    assert "daemon-reload" in caught.value.hint
