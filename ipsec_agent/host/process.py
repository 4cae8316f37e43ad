"""charon as a process: is it alive, is it ours, signal it, be told when it dies."""

import asyncio
import contextlib
import os
import signal
import socket
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.errors import CharonTimeoutError, ForeignCharonError, StartError
from ipsec_agent.host import own_time
from ipsec_agent.host.birth import birth
from ipsec_agent.host.exhausted import is_exhausted, refused
from ipsec_agent.host.files import write_whole
from ipsec_agent.host.pidfd import open_pidfd
from ipsec_agent.host.writers import peer_of, trusted

DESCRIPTOR_AGAIN = 1.0
"""Seconds until a descriptor of a process is asked for again, where none is left."""

KERNEL = "the agent needs pidfd_open (Linux 5.3); see what filters its system calls"

KILL_DEADLINE = 5.0
"""Seconds that the kernel may take to end a process after SIGKILL."""


def find_charon(vici_socket: Path, conf: Path) -> CharonProcess | None:
    """The charon that listens on the socket, or ours that lost it; None where none runs.

    A hung or stopped one is found, too: the kernel accepts for it, or it is in our record.

    Raises:
        CharonTimeoutError: a foreign process listens, but accepts no connection.
    """
    uid = 0
    try:
        pid, uid = _listener(vici_socket)
    except BlockingIOError as error:
        pid = _recorded(conf)
        if pid is None:
            raise CharonTimeoutError(
                f"the program that listens on {vici_socket} does not accept connections",
                hint=f"it hangs and is not this agent's charon: see `ss -xlp src {vici_socket}`",
            ) from error
    if pid is not None:
        found = facts(pid, conf)
        # Another user may give his program any environment.
        return found if found is None or trusted(uid) else replace(found, ours=False)
    pid = _recorded(conf)
    return None if pid is None else facts(pid, conf, reachable=False)


def _listener(path: Path) -> tuple[int | None, int]:
    """Pid and user of the process that listens on a UNIX socket.

    Raises:
        BlockingIOError: its backlog is full. A stopped charon's is after four connections.
        KernelError: there is no descriptor left for a socket.
    """
    try:
        opened = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    except OSError as error:
        raise refused(f"cannot look who listens on {path}", error) from error
    with opened as channel:
        channel.setblocking(False)
        try:
            channel.connect(str(path))
        except BlockingIOError:
            raise
        except OSError:
            return None, 0
        return peer_of(channel)


def listens(pid: int, path: Path) -> bool:
    """Whether this process listens on the socket."""
    with contextlib.suppress(BlockingIOError):
        return _listener(path)[0] == pid
    return False


def listener(path: Path) -> int | None:
    """The pid of the process that listens on the socket; None without one, or where it is full."""
    with contextlib.suppress(BlockingIOError):
        return _listener(path)[0]
    return None


def _recorded(conf: Path) -> int | None:
    """The pid that we noted when we started charon, if it is still that charon's."""
    try:
        pid = int(record_of(conf).read_text())
    except (OSError, ValueError):
        return None
    return pid if _is_ours(pid, conf) else None


def record_of(conf: Path) -> Path:
    """The file in which the pid of a charon that runs on this strongswan.conf is noted."""
    return conf.with_name("charon.pid")


def _is_ours(pid: int, conf: Path) -> bool:
    try:
        environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
    except OSError:
        return False
    return f"STRONGSWAN_CONF={conf}".encode() in environment


def note_pid(conf: Path, pid: int) -> None:
    """Note the pid of a charon that has just started, or that others started, such as systemd, so
    that it is found again. Who reads it meanwhile, such as monit, never finds an empty file.
    """
    if _recorded(conf) != pid:
        # On a full disk it is found by its socket alone.
        with contextlib.suppress(StartError):
            write_whole(record_of(conf), f"{pid}\n", mode=0o644)


def facts(pid: int, conf: Path, *, reachable: bool = True) -> CharonProcess | None:
    """What the kernel tells of a process, None where it has ended."""
    try:
        process = psutil.Process(pid)
        with process.oneshot():
            status = process.status()
            if status in {psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD}:
                return None
            born = birth(pid)
            if not born:
                return None
            return CharonProcess(
                pid=pid,
                started=process.create_time(),
                memory=process.memory_info().rss,
                ours=_is_ours(pid, conf),
                stopped=status in {psutil.STATUS_STOPPED, psutil.STATUS_TRACING_STOP},
                reachable=reachable,
                birth=born,
            )
    except psutil.NoSuchProcess:
        return None


async def watch_death(pid: int, wake: Callable[[], None]) -> int | None:
    """Return, and wake, as soon as the process ends (pidfd_open(2)); reaps a child of ours.

    Returns:
        its exit code or the negative number of the signal that ended it, None of one that is not
        our child.

    Raises:
        KernelError: the kernel does not let it be watched.
    """
    try:
        descriptor = await _pidfd(pid)
    except ProcessLookupError:
        wake()
        return None
    try:
        status = await _end_of(descriptor)
        wake()
        return status
    finally:
        os.close(descriptor)


async def _pidfd(pid: int) -> int:
    """A descriptor of a process, as soon as there is one left.

    Raises:
        ProcessLookupError: there is no such process.
        KernelError: the kernel gives none, however long one waits.
    """
    while True:
        try:
            return open_pidfd(pid)
        except ProcessLookupError:
            raise
        except OSError as error:
            if not is_exhausted(error):
                raise refused(f"cannot watch charon (pid {pid})", error, KERNEL) from error
            await asyncio.sleep(DESCRIPTOR_AGAIN)


async def _end_of(descriptor: int) -> int | None:
    """Wait until the process of a pidfd ends; its status, as `watch_death` tells it."""
    loop = asyncio.get_running_loop()
    ended = asyncio.Event()
    loop.add_reader(descriptor, ended.set)
    try:
        await ended.wait()
    finally:
        loop.remove_reader(descriptor)
    # An adopted charon is not our child, and its new parent reaps it.
    with contextlib.suppress(ChildProcessError):
        found = os.waitid(os.P_PIDFD, descriptor, os.WEXITED | os.WNOHANG)  # noqa: ASYNC222 - it has ended
        if found is not None:
            return found.si_status if found.si_code == os.CLD_EXITED else -found.si_status
    return None


async def stop_charon(process: CharonProcess, deadline: float) -> None:
    """End charon: SIGTERM, so that it sends DELETE to its peers, and SIGKILL after the deadline.

    Args:
        deadline: seconds to wait after SIGTERM.

    Raises:
        CharonTimeoutError: not even SIGKILL ended it.
    """
    with _pinned(process) as descriptor:
        if descriptor is None:
            return
        signal.pidfd_send_signal(descriptor, signal.SIGTERM)
        # One that a signal has stopped ends only once it goes on.
        signal.pidfd_send_signal(descriptor, signal.SIGCONT)
        if not await _ends_within(descriptor, deadline):
            await _kill(descriptor, process.pid)


async def kill_charon(process: CharonProcess) -> None:
    """End charon at once: its peers are told nothing, its policies and SAs stay in the kernel.

    Raises:
        CharonTimeoutError: it does not end.
    """
    with _pinned(process) as descriptor:
        if descriptor is not None:
            await _kill(descriptor, process.pid)


def continue_charon(process: CharonProcess) -> None:
    """Let a charon go on that a signal has stopped."""
    with _pinned(process) as descriptor:
        if descriptor is not None:
            signal.pidfd_send_signal(descriptor, signal.SIGCONT)


def is_well(process: CharonProcess, vici_socket: Path) -> bool:
    """Whether a glance shows nothing unusual; far cheaper than to ask charon, for each second."""
    return _state(Path(f"/proc/{process.pid}/stat")) not in set("TtZXx") and vici_socket.exists()


def _state(stat: Path) -> str:
    """The state of a process or thread (proc_pid_stat(5)), X once it has ended."""
    try:
        # It is behind the name, which may hold anything.
        return stat.read_text(errors="replace").rpartition(") ")[2][:1]
    except OSError:
        return "X"


class Work(Struct, frozen=True):
    """What the threads of a process have done so far, as /proc/<pid>/task/*/schedstat tells it.

    Attributes:
        busy: seconds for which they have run or waited for a CPU, together. A thread that waits for
            anything else adds nothing; one that waits for a CPU adds that once it has got one.
        waiting: the threads that are ready to run, each with its schedstat: while that does not
            change, the thread has got no CPU.
    """

    busy: float = 0.0
    waiting: frozenset[tuple[str, str]] = frozenset()

    def since(self, before: "Work", seconds: float, threads: float) -> bool:
        """Whether so many threads on average ran, or waited for a CPU, since an earlier look.

        To be ready at both looks alone says nothing: whoever asks a process wakes it.
        """
        return self.busy - before.busy > threads * seconds or bool(self.waiting & before.waiting)


def work(pid: int) -> Work:
    """What a process has done so far; nothing once it has ended.

    Source: nanoseconds and fields as the kernel's Documentation/scheduler/sched-stats.rst has them.
    """
    busy, waiting = 0, set()
    for thread in Path(f"/proc/{pid}/task").glob("*"):
        with contextlib.suppress(OSError, ValueError):
            told = (thread / "schedstat").read_text()
            busy += sum(map(int, told.split()[:2]))
            if _state(thread / "stat") == "R":
                waiting.add((thread.name, told))
    return Work(busy / 1e9, frozenset(waiting))


@contextlib.contextmanager
def _pinned(process: CharonProcess) -> Iterator[int | None]:
    """A pidfd of charon, None where it has ended; that it ends within the block is no error."""
    descriptor, ours = -1, False
    with contextlib.ExitStack() as opened:
        try:
            descriptor = open_pidfd(process.pid)
            opened.callback(os.close, descriptor)
            # The pid may be another's by now; the descriptor pins whoever has it.
            ours = birth(process.pid) == process.birth
        except ProcessLookupError:
            pass
        except OSError as error:
            raise refused(f"cannot end charon (pid {process.pid})", error, KERNEL) from error
        with contextlib.suppress(ProcessLookupError):
            yield descriptor if ours else None


async def _kill(descriptor: int, pid: int) -> None:
    signal.pidfd_send_signal(descriptor, signal.SIGKILL)
    if not await _ends_within(descriptor, KILL_DEADLINE):
        raise CharonTimeoutError(
            f"charon (pid {pid}) does not end, not even after SIGKILL",
            hint="it hangs inside the kernel; see `dmesg`",
        )


async def _ends_within(descriptor: int, seconds: float) -> bool:
    try:
        async with own_time.timeout(seconds):
            await _end_of(descriptor)
    except TimeoutError:
        return False
    return True


def foreign(process: CharonProcess, vici: Path) -> ForeignCharonError:
    """The refusal to command a charon that is not ours."""
    return ForeignCharonError(
        f"another charon (pid {process.pid}) owns the VICI socket {vici}",
        hint="stop it (systemctl disable --now strongswan), or set agent.vici_socket",
    )
