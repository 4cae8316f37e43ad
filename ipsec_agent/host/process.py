"""charon as a process: is it alive, is it ours, start it, end it, be told when it dies.

charon outlives the agent: it is started in a session of its own, and no pipe ties it to us.
"""

import asyncio
import contextlib
import os
import signal
import socket
import struct
from collections.abc import Callable
from pathlib import Path

import psutil

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonStartError

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

CONNECT_DEADLINE = 1.0
"""Seconds to connect to the VICI socket; the kernel answers for a charon that hangs."""

UCRED = struct.Struct("3i")


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

    A hung or stopped one is found, too: the kernel accepts for it.
    """
    pid = _listener(vici_socket)
    if pid is None:
        pid = _by_environment(conf)
    return None if pid is None else _facts(pid, conf)


def _listener(path: Path) -> int | None:
    """The pid of the process that listens on a UNIX socket (SO_PEERCRED, unix(7))."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(CONNECT_DEADLINE)
        try:
            channel.connect(str(path))
        except OSError:
            return None
        return int(
            UCRED.unpack(channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size))[0]
        )


def _by_environment(conf: Path) -> int | None:
    """A charon of ours whose socket is gone; looked for by what it was started with."""
    record = conf.with_name("charon.pid")
    try:
        pid = int(record.read_text())
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid, conf) else None


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
    with output.open("wb") as sink:
        child = await asyncio.create_subprocess_exec(
            program,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=sink,
            stderr=sink,
            env=environment,
            cwd="/",
            umask=0o027,
            start_new_session=True,
        )
    conf_path.with_name("charon.pid").write_text(f"{child.pid}\n")
    try:
        async with asyncio.timeout(deadline):
            while _listener(vici_socket) != child.pid:
                if child.returncode is not None:
                    raise _ended(child.returncode, output)
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        child.kill()
        await child.wait()
        raise CharonStartError(
            f"charon did not listen on {vici_socket} within {deadline:g} s",
            hint="see its log, or allow more time with prestart_timeout",
        ) from error
    found = _facts(child.pid, conf_path)
    if found is None:
        raise _ended(child.returncode or 0, output)
    return found


def _ended(code: int, output: Path) -> CharonStartError:
    with contextlib.suppress(OSError):
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return CharonStartError(
                f"charon ended at once (exit code {code}): {lines[-1][:300]}", hint="see its log"
            )
    return CharonStartError(f"charon ended at once (exit code {code})", hint="see its log")


async def watch_death(pid: int, wake: Callable[[], None]) -> None:
    """Return, and wake, as soon as the process ends (pidfd_open(2))."""
    try:
        descriptor = os.pidfd_open(pid)
    except ProcessLookupError:
        wake()
        return
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    try:
        loop.add_reader(descriptor, ended.set)
        await ended.wait()
        wake()
    finally:
        loop.remove_reader(descriptor)
        os.close(descriptor)


async def stop_charon(process: CharonProcess, deadline: float) -> None:
    """End charon: SIGTERM, so that it sends DELETE to its peers, and SIGKILL after the deadline.

    Args:
        deadline: seconds to wait after SIGTERM.
    """
    try:
        descriptor = os.pidfd_open(process.pid)
    except ProcessLookupError:
        return
    try:
        # The pid may be another's by now; the descriptor pins whoever has it.
        if psutil.Process(process.pid).create_time() != process.started:
            return
        for number, limit in ((signal.SIGTERM, deadline), (signal.SIGKILL, 5.0)):
            signal.pidfd_send_signal(descriptor, number)
            if number is signal.SIGTERM:
                # One that a signal has stopped ends only once it goes on.
                signal.pidfd_send_signal(descriptor, signal.SIGCONT)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(limit):
                    await watch_death(process.pid, lambda: None)
                    return
    except (ProcessLookupError, psutil.NoSuchProcess):
        return
    finally:
        os.close(descriptor)
