"""What systemd is told of the agent (sd_notify(3)), and asked to do with charon's unit.

Without systemd nothing is told, and charon has no unit.
"""

import contextlib
import os
import socket
import time
from pathlib import Path

from msgspec import Struct

from ipsec_agent.core.words import printable
from ipsec_agent.errors import CharonStartError, CharonTimeoutError
from ipsec_agent.host.exhausted import NO_START, remedy
from ipsec_agent.host.program import find_program, outcome, start_program
from ipsec_agent.host.understood import understood

CHARON_UNIT = "IPSEC_AGENT_CHARON_UNIT"
"""The environment variable by which ipsec-agent.service names charon's unit."""


class UnitState(Struct, frozen=True):
    """What systemd says of a unit (org.freedesktop.systemd1(5)).

    Attributes:
        active: active, activating, deactivating, inactive, failed …
        sub: finer, such as auto-restart.
        result: success, exit-code, signal, timeout …, of its last run.
        pid: of its main process, 0 where none runs.
        status: the exit code, or the signal, of its last run.
    """

    active: str
    sub: str
    result: str
    pid: int
    status: int


def notify(*assignments: str) -> None:
    """Send assignments such as `READY=1` in one datagram; harmless without a listener.

    What follows a line's end within one of them would be another one.
    """
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    told = "\n".join(printable(one) for one in assignments).encode()
    # A manager that has gone away must not take IPsec with it, nor a limit of open files.
    with (
        contextlib.suppress(OSError),
        socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel,
    ):
        # A manager that takes nothing must not keep the loop waiting.
        channel.setblocking(False)
        channel.connect(address)
        channel.send(told)


def notify_reloading() -> None:
    """Say that a reload began; the two assignments must be in one datagram (sd_notify(3))."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Seconds within which systemd wants a sign of life, None where it wants none."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000


def charon_unit() -> str | None:
    """The unit that runs charon, None where the agent itself starts it."""
    return os.environ.get(CHARON_UNIT) or None


def is_of_unit(pid: int, unit: str) -> bool:
    """Whether systemd runs a process as part of a service (cgroups(7))."""
    try:
        groups = Path(f"/proc/{pid}/cgroup").read_text(errors="replace").splitlines()
    except OSError:
        return False
    return any(group.endswith(f"/{unit}") for group in groups)


async def start_unit(name: str, *, deadline: float) -> None:
    """Ask systemd to start a unit, and do not wait for it; one that runs is left alone.

    A stop that is under way is not undone: it is the operator's, or the machine's shutdown.

    Args:
        deadline: seconds that systemd may take to accept.

    Raises:
        CharonStartError: systemd refuses, or is not there.
    """
    await _systemctl("start", "--no-block", "--job-mode=fail", name, deadline=deadline)


async def stop_unit(name: str, *, deadline: float) -> None:
    """Have systemd stop a unit and wait until it has ended; it is not restarted.

    Args:
        deadline: seconds. The unit's own TimeoutStopSec decides when it is killed.

    Raises:
        CharonStartError: systemd refuses, or is not there.
        CharonTimeoutError: it did not end in time.
    """
    try:
        await _systemctl("stop", name, deadline=deadline)
    except TimeoutError as error:
        raise CharonTimeoutError(
            f"{name} did not end within {deadline:g} s", hint=f"see `systemctl status {name}`"
        ) from error


async def unit_state(name: str, *, deadline: float) -> UnitState:
    """What systemd says of a unit.

    Raises:
        CharonStartError: systemd does not say, or knows no such unit.
    """
    shown = await _systemctl(
        "show",
        "--property=LoadState,ActiveState,SubState,Result,MainPID,ExecMainStatus",
        name,
        deadline=deadline,
    )
    return state_of(name, shown)


def state_of(name: str, shown: str) -> UnitState:
    """The state of a unit, of what `systemctl show` printed.

    Raises:
        CharonStartError: systemd knows no such unit, or says what is not understood.
    """
    found = dict(line.split("=", 1) for line in shown.splitlines() if "=" in line)
    if found.get("LoadState") != "loaded":
        raise CharonStartError(
            f"systemd has no usable unit {name} ({found.get('LoadState', 'unknown')})",
            hint=f"install it and run `systemctl daemon-reload`, or unset {CHARON_UNIT}",
        )
    odd = CharonStartError(f"cannot understand what systemd says of {name}")
    with understood(lambda _error: odd):
        return UnitState(
            active=found.get("ActiveState", ""),
            sub=found.get("SubState", ""),
            result=found.get("Result", ""),
            pid=int(found.get("MainPID", "0")),
            status=int(found.get("ExecMainStatus", "0")),
        )


async def _systemctl(verb: str, *arguments: str, deadline: float) -> str:
    """Run systemctl and return what it prints.

    Raises:
        CharonStartError: it cannot be run, refuses, or does not answer in time.
        TimeoutError: `stop` did not end in time.
    """
    program = find_program("systemctl")
    if program is None:
        raise CharonStartError(
            "the program systemctl is not installed",
            hint=f"without systemd, unset {CHARON_UNIT}",
        )
    try:
        process = await start_program(program, "--no-ask-password", "--no-pager", verb, *arguments)
    except OSError as error:
        raise CharonStartError(
            f"cannot start {program}: {error.strerror}", hint=remedy(error, NO_START)
        ) from error
    try:
        status, out, complaint = await outcome(process, deadline)
    except TimeoutError as error:
        if verb == "stop":
            raise
        raise CharonStartError(
            f"systemd did not answer within {deadline:g} s (systemctl {verb})",
            hint="the machine is overloaded; the agent tries again",
        ) from error
    if status != 0:
        raise _refusal(verb, arguments[-1], complaint)
    return out


def _refusal(verb: str, unit: str, complaint: str) -> CharonStartError:
    lines = [line.strip() for line in complaint.splitlines() if line.strip()]
    reason = lines[0][:300] if lines else "no reason given"
    hint = f"see `systemctl status {unit}`"
    if "not found" in reason:
        hint = f"install the unit and run `systemctl daemon-reload`, or unset {CHARON_UNIT}"
    elif "destructive" in reason or "conflict" in reason:
        hint = "it is being stopped, as at shutdown"
    return CharonStartError(f"systemd did not {verb} {unit}: {reason}", hint=hint)
