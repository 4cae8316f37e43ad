"""charon as a process: is it alive, is it ours, start it, end it, be told when it dies.

charon outlives the agent: it is started in a session of its own, and no pipe ties it to us. Not
by asyncio's subprocesses: those kill a child that still runs when the loop closes (Python 3.12).
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonStartError, CharonTimeoutError

PROGRAMS = (
    "/usr/sbin/charon-systemd",
    "/usr/lib/ipsec/charon",
    "/usr/libexec/ipsec/charon",
    "/usr/lib/strongswan/charon",
    "/var/vcap/packages/strongswan/libexec/ipsec/charon",
)
"""charon-systemd first: it needs no pid file, and Debian's AppArmor lets it read our config."""

POLL = 0.05
"""Seconds between looks at a charon that starts or ends."""

KILL_DEADLINE = 5.0
"""Seconds that the kernel may take to end a process after SIGKILL."""

UCRED = struct.Struct("3i")

INITIALISATION_FAILED = 66
"""charon's exit code where a plugin is missing, above all (strongSwan: library.h, SS_RC_*)."""


def locate_program(configured: str) -> str:
    """The path of charon.

    Raises:
        CharonStartError: there is none.
    """
    for candidate in (configured,) if configured else PROGRAMS:
        if os.access(candidate, os.X_OK):
            return candidate
    if configured:
        raise CharonStartError(
            f"charon is not at {configured}", hint="correct agent.charon.program"
        )
    raise CharonStartError(
        "strongSwan's charon is not installed",
        hint="apt install charon-systemd (Debian), or set agent.charon.program",
    )


def find_charon(vici_socket: Path, conf: Path) -> CharonProcess | None:
    """The charon that listens on the socket, or ours that lost it; None where none runs.

    A hung or stopped one is found, too: the kernel accepts for it, or it is in our record.

    Raises:
        CharonTimeoutError: somebody listens, but accepts nobody, and it is not ours.
    """
    try:
        pid = _listener(vici_socket)
    except BlockingIOError as error:
        pid = _recorded(conf)
        if pid is None:
            raise CharonTimeoutError(
                f"the program that listens on {vici_socket} accepts no connection",
                hint=f"it hangs, and is not ours: see `ss -xlp src {vici_socket}`",
            ) from error
    if pid is None:
        pid = _recorded(conf)
    return None if pid is None else _facts(pid, conf)


def _listener(path: Path) -> int | None:
    """The pid of the process that listens on a UNIX socket (SO_PEERCRED, unix(7)).

    Raises:
        BlockingIOError: its backlog is full. A stopped charon's is after four connections.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.setblocking(False)
        try:
            channel.connect(str(path))
        except BlockingIOError:
            raise
        except OSError:
            return None
        return int(
            UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[0]
        )


def _listens(pid: int, path: Path) -> bool:
    with contextlib.suppress(BlockingIOError):
        return _listener(path) == pid
    return False


def _recorded(conf: Path) -> int | None:
    """The pid that we noted when we started charon, if it is still that charon's."""
    try:
        pid = int(_record(conf).read_text())
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid, conf) else None


def _record(conf: Path) -> Path:
    return conf.with_name("charon.pid")


def _is_ours(pid: int, conf: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"STRONGSWAN_CONF={conf}".encode() in environment


def _facts(pid: int, conf: Path) -> CharonProcess | None:
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            status = process.status()
            if status in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                return None
            return CharonProcess(
                pid=pid,
                started=process.create_time(),
                memory=process.memory_info().rss,
                ours=_is_ours(pid, conf),
                stopped=status in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP},
            )
    except psutil.NoSuchProcess:
        return None


async def start_charon(
    program: str,
    *,
    conf_path: Path,
    run_dir: Path,
    vici_socket: Path,
    library_path: str,
    deadline: float,
) -> CharonProcess:
    """Start charon and wait until it listens on its VICI socket.

    Args:
        deadline: seconds.

    Raises:
        CharonStartError: it ended at once, or did not listen in time.
    """
    environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "STRONGSWAN_CONF": str(conf_path)}
    if library_path:
        environment["LD_LIBRARY_PATH"] = library_path
    output = run_dir / "charon.out"
    vici_socket.unlink(missing_ok=True)  # noqa: ASYNC240 - a file in memory, no wait
    child = _spawn(program, environment, output)
    _record(conf_path).write_text(f"{child.pid}\n")
    try:
        async with asyncio.timeout(deadline):
            while not _listens(child.pid, vici_socket):
                if child.poll() is not None:
                    raise _ended(child.returncode, output)
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        _kill(child)
        raise CharonStartError(
            f"charon did not listen on {vici_socket} within {deadline:g} s",
            hint="see its log, or allow more time with prestart_timeout",
        ) from error
    except asyncio.CancelledError:
        _kill(child)
        raise
    found = _facts(child.pid, conf_path)
    if found is None:
        raise _ended(child.wait(), output)
    # From here on watch_death reaps it; Popen must not complain that it lives on.
    child.returncode = 0
    return found


def _spawn(program: str, environment: dict[str, str], output: Path) -> subprocess.Popen[bytes]:
    try:
        with output.open("wb") as sink:
            return subprocess.Popen(  # noqa: S603 - the operator names the program
                [program],
                stdin=subprocess.DEVNULL,
                stdout=sink,
                stderr=sink,
                env=environment,
                cwd="/",
                umask=0o027,
                start_new_session=True,
            )
    except OSError as error:
        raise CharonStartError(
            f"{program} cannot be run: {error.strerror}", hint="correct agent.charon.program"
        ) from error


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(KILL_DEADLINE)


def _ended(code: int, output: Path) -> CharonStartError:
    if code == INITIALISATION_FAILED:
        return CharonStartError(
            f"charon ended at once (exit code {code}): it lacks a plugin, or may not do its work",
            hint="apt install libstrongswan-standard-plugins (Debian); its log names what is missing",
        )
    with contextlib.suppress(OSError):
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return CharonStartError(
                f"charon ended at once (exit code {code}): {lines[-1][:300]}", hint="see its log"
            )
    return CharonStartError(f"charon ended at once (exit code {code})", hint="see its log")


async def watch_death(pid: int, wake: Callable[[], None]) -> None:
    """Return, and wake, as soon as the process ends (pidfd_open(2)); reaps a child of ours."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        wake()
        return
    try:
        await _end_of(descriptor)
        wake()
    finally:
        os.close(descriptor)


async def _end_of(descriptor: int) -> None:
    """Wait until the process of a pidfd ends."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
    # An adopted charon is not our child, and its new parent reaps it.
    with contextlib.suppress(ChildProcessError):
        os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - it has ended


async def stop_charon(process: CharonProcess, deadline: float) -> None:
    """End charon: SIGTERM, so that it sends DELETE to its peers, and SIGKILL after the deadline.

    Args:
        deadline: seconds to wait after SIGTERM.

    Raises:
        CharonTimeoutError: not even SIGKILL ended it.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The pid may be another's by now; the descriptor pins whoever has it.
        if psutil.Process(process.pid).create_time() != process.started:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        # One that a signal has stopped ends only once it goes on.
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        if await _ends_within(descriptor, deadline):
            return
        signal.pidfd_send_signal(descriptor, signal.SIGKILL)
        if not await _ends_within(descriptor, KILL_DEADLINE):
            raise CharonTimeoutError(
                f"charon (pid {process.pid}) does not end, not even by SIGKILL",
                hint="it waits inside the kernel; see `dmesg`",
            )
    except (ProcessLookupError, psutil.NoSuchProcess):
        return
    finally:
        os.close(descriptor)


async def _ends_within(descriptor: int, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await _end_of(descriptor)
    except TimeoutError:
        return False
    return True
