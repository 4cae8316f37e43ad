"""charon as a process: started, found, adopted, watched, ended; the real one in a namespace."""

import asyncio
import contextlib
import gc
import os
import shlex
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Awaitable, Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, CharonConfig, Config
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.core.strongswan_conf import PLUGINS, SETTINGS
from ipsec_agent.errors import CharonStartError, CharonTimeoutError
from ipsec_agent.host.charon import open_charon
from ipsec_agent.host.charon_start import (
    installed_plugins,
    locate_program,
    start_charon,
    write_conf,
)
from ipsec_agent.host.process import (
    continue_charon,
    find_charon,
    is_well,
    kill_charon,
    stop_charon,
    watch_death,
)
from tests.charon.nodes import DEADLINE, SCALE, complaints_of_charon, halt, ip
from tests.configs import config

pytestmark = pytest.mark.charon

SYSTEMD, CLASSIC = "/usr/sbin/charon-systemd", "/usr/lib/ipsec/charon"
AT_ONCE = 0.5 * SCALE
"""Seconds within which a death must be noticed."""


class Place:
    """A run directory whose charons live in a namespace of their own."""

    def __init__(self, directory: Path, netns: str) -> None:
        self.directory = directory
        self.netns = netns
        self.conf = directory / "strongswan.conf"
        self.vici = directory / "charon.vici"
        self.log = directory / "charon.log"
        self.pids: list[int] = []

    @property
    def config(self) -> Config:
        """A config that sends charon's log to a file."""
        return config(agent=AgentConfig(charon=CharonConfig(log=str(self.log))))

    def script(self, text: str) -> str:
        """A program made of shell lines."""
        path = self.directory / "program"
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)
        return str(path)

    def wrapped(self, program: str, before: str = "") -> str:
        """A program that becomes charon inside the namespace, with a /run of its own."""
        inside = f"mount -t tmpfs tmpfs /run; {before} exec {program}"
        return self.script(f"exec ip netns exec {self.netns} sh -c {shlex.quote(inside)}")

    def write_conf(self, program: str) -> None:
        """Write its strongswan.conf as the agent does."""
        charon = replace(self.config.agent.charon, program=program)
        agent = replace(self.config.agent, charon=charon)
        write_conf(self.conf, replace(self.config, agent=agent), vici_socket=self.vici)

    async def start(
        self, program: str = SYSTEMD, *, before: str = "", deadline: float = DEADLINE
    ) -> CharonProcess:
        """Start charon as the agent does."""
        self.write_conf(program)
        return await self.run(self.wrapped(program, before), deadline)

    async def run(self, program: str, deadline: float) -> CharonProcess:
        """Start a program as charon."""
        found = await start_charon(
            program,
            conf_path=self.conf,
            run_dir=self.directory,
            vici_socket=self.vici,
            library_path="",
            deadline=deadline,
        )
        self.pids.append(found.pid)
        return found

    def find(self) -> CharonProcess | None:
        """The charon of this place."""
        return find_charon(self.vici, self.conf)

    def clean(self) -> None:
        """End what still runs of what was started here."""
        with contextlib.suppress(OSError, ValueError):
            self.pids.append(int((self.directory / "charon.pid").read_text()))
        for pid in self.pids:
            with contextlib.suppress(OSError):
                if str(self.directory).encode() in Path(f"/proc/{pid}/environ").read_bytes():
                    os.kill(pid, signal.SIGKILL)
            with contextlib.suppress(ChildProcessError):
                os.waitpid(pid, 0)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    """An empty place."""
    name = f"charon-{os.getpid()}"
    ip("netns", "add", name)
    found = Place(tmp_path, name)
    try:
        ip("link", "set", "lo", "up", netns=name)
        yield found
    finally:
        found.clean()
        ip("netns", "del", name)


def exists(pid: int) -> bool:
    """Whether a process, or its zombie, is there."""
    return Path(f"/proc/{pid}").exists()


def code_of(pid: int) -> bytes:
    """What a charon consists of: strongSwan's libraries and plugins that it has mapped."""
    mapped = Path(f"/proc/{pid}/maps").read_text().split()
    files = {word for word in mapped if "strongswan" in word or "libcharon" in word}
    return b"".join(Path(name).read_bytes() for name in files)


def started(*arguments: str) -> subprocess.Popen[bytes]:
    """A Python of its own that can import the package."""
    return subprocess.Popen(
        [sys.executable, "-W", "ignore::DeprecationWarning", "-c", *arguments],
        stdout=subprocess.PIPE,
        cwd=Path(__file__).parents[2],
    )


async def within(seconds: float, what: Awaitable[object]) -> None:
    """Await, but not for longer."""
    async with asyncio.timeout(seconds):
        await what


with_classic = pytest.mark.skipif(
    not Path(CLASSIC).exists(), reason="from Debian 13 on its package excludes that of SYSTEMD"
)


@pytest.mark.parametrize("program", [SYSTEMD, pytest.param(CLASSIC, marks=with_classic)])
async def test_start_and_stop(place: Place, program: str) -> None:
    """Either program starts, answers, names each plugin asked for, and ends by SIGTERM."""
    found = await place.start(program)
    async with open_charon(place.vici) as client:
        version, plugins = await client.version(), await client.plugins()
    log = place.log.read_text()
    await stop_charon(found, DEADLINE)

    assert found.ours
    assert not found.stopped
    assert found.memory > 1 << 20
    assert version.split(".")[0] in {"5", "6"}
    absent = {"kdf"} - installed_plugins(program)
    assert set(PLUGINS) - absent <= set(plugins)
    assert complaints_of_charon(log) == []
    assert not exists(found.pid), "it has ended, and was reaped"
    assert place.find() is None


async def test_it_is_on_its_own(place: Place) -> None:
    """A session of its own, no pipe to us, no directory in use, its output in the run directory."""
    found = await place.start()

    process = Path(f"/proc/{found.pid}")
    targets = {path.name: str(path.readlink()) for path in (process / "fd").iterdir()}
    assert os.getsid(found.pid) == found.pid
    assert (process / "cwd").readlink() == Path("/")
    assert targets["0"] == "/dev/null"
    assert targets["1"] == targets["2"] == str(place.directory / "charon.out")
    # charon has pipes within itself; both ends are its own.
    pipes = [target for target in targets.values() if target.startswith("pipe:")]
    assert all(pipes.count(pipe) == 2 for pipe in pipes)
    environment = (process / "environ").read_bytes().split(b"\0")
    assert {item.partition(b"=")[0] for item in environment} <= {
        b"PATH", b"PWD", b"OLDPWD", b"SHLVL", b"_", b"STRONGSWAN_CONF", b"",
    }  # fmt: skip


PARENT = """
    import asyncio, os, signal, sys
    from pathlib import Path
    from ipsec_agent.host.charon_start import start_charon
    program, where, how = sys.argv[1:]
    where = Path(where)
    if hasattr(asyncio, "set_child_watcher"):  # the default from Python 3.12 on
        asyncio.set_child_watcher(asyncio.PidfdChildWatcher())
    async def main():
        if hasattr(asyncio, "get_child_watcher"):
            asyncio.get_child_watcher().attach_loop(asyncio.get_running_loop())
        await start_charon(program, conf_path=where / "strongswan.conf", run_dir=where,
            vici_socket=where / "charon.vici", library_path="", deadline=20)
        if how == "killed":
            os.kill(os.getpid(), signal.SIGKILL)
    asyncio.run(main())
"""


@pytest.mark.parametrize("how", ["ended", "killed"])
async def test_it_outlives_its_starter(place: Place, how: str) -> None:
    """However the agent ends, charon goes on, and the next agent finds and commands it."""
    place.write_conf(SYSTEMD)
    starter = started(textwrap.dedent(PARENT), place.wrapped(SYSTEMD), str(place.directory), how)
    await asyncio.to_thread(starter.communicate, timeout=DEADLINE)
    await asyncio.sleep(0.3)

    assert starter.returncode == (-signal.SIGKILL if how == "killed" else 0)
    found = place.find()
    assert found is not None
    assert found.ours
    assert found.pid == int((place.directory / "charon.pid").read_text())
    async with open_charon(place.vici) as client:
        assert await client.version()
    await stop_charon(found, DEADLINE)
    assert place.find() is None


async def test_it_survives_the_collector(place: Place) -> None:
    """Nothing that Python collects ends charon."""
    found = await place.start()

    gc.collect()
    await asyncio.sleep(0.1)

    again = place.find()
    assert again is not None
    assert (again.pid, again.started, again.ours) == (found.pid, found.started, True)


async def test_hung(place: Place) -> None:
    """A stopped charon is found as stopped, times out by the deadline, and can still be ended."""
    found = await place.start()
    halt(found.pid)

    for _ in range(8):  # more than its backlog takes
        with pytest.raises(CharonTimeoutError, match=r"within 0\.2 s"):
            async with open_charon(place.vici, 0.2) as client:
                await client.version()
    hung = place.find()
    assert hung is not None
    await stop_charon(hung, DEADLINE)

    assert "SIGTERM" in place.log.read_text(), "which it gets once it goes on"
    assert (hung.pid, hung.started, hung.ours, hung.stopped) == (
        found.pid, found.started, True, True,
    )  # fmt: skip
    assert place.find() is None


async def test_continued(place: Place) -> None:
    """A glance shows that a signal stopped it; continued, it answers again."""
    found = await place.start()
    assert is_well(found, place.vici)
    halt(found.pid)
    assert not is_well(found, place.vici)

    continue_charon(found)

    async with open_charon(place.vici) as client:
        assert await client.version()
    assert is_well(found, place.vici)


async def test_killed(place: Place) -> None:
    """It ends at once; one that is another's, or has ended, is left alone."""
    found = await place.start()
    await kill_charon(replace(found, birth="another"))
    assert place.find() is not None

    # When it started is told by the clock of now, which may have been set.
    await kill_charon(replace(found, started=found.started - 1))
    await kill_charon(found)

    assert place.find() is None
    assert not is_well(found, place.vici)


async def test_it_lost_its_socket(place: Place) -> None:
    """A charon of ours whose socket somebody removed is found by the record."""
    found = await place.start()

    place.vici.unlink()

    again = place.find()
    assert again is not None
    assert (again.pid, again.ours, again.reachable) == (found.pid, True, False)
    assert found.reachable


async def test_foreign(place: Place) -> None:
    """Whoever else listens is not ours; one that accepts nobody is told as such."""
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as callers:
        listener.bind(str(place.vici))
        listener.listen(1)

        found = place.find()
        assert found is not None
        assert (found.pid, found.ours) == (os.getpid(), False)

        with contextlib.suppress(BlockingIOError):
            while True:
                caller = callers.enter_context(socket.socket(socket.AF_UNIX))
                caller.setblocking(False)
                caller.connect(str(place.vici))
        with pytest.raises(CharonTimeoutError, match="does not accept connections"):
            place.find()


async def test_a_stranger_with_our_pid(place: Place) -> None:
    """A record whose pid belongs to another program now means nothing."""
    (place.directory / "charon.pid").write_text(f"{os.getpid()}\n")

    assert place.find() is None


async def test_stop_spares_a_stranger(place: Place) -> None:
    """A process that has charon's pid but another birth is not charon."""
    found = await place.start()

    await stop_charon(replace(found, birth="another"), DEADLINE)

    assert place.find() is not None


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
async def test_death_is_noticed(place: Place, number: signal.Signals) -> None:
    """Whoever watches is woken at once, and the dead process is reaped."""
    found = await place.start()
    woken: list[float] = []
    watch = asyncio.create_task(watch_death(found.pid, lambda: woken.append(time.monotonic())))
    await asyncio.sleep(0.1)
    assert not woken

    os.kill(found.pid, number)
    killed = time.monotonic()
    await within(DEADLINE, watch)

    assert number is signal.SIGTERM or woken[0] - killed < AT_ONCE
    assert len(woken) == 1
    assert not exists(found.pid)


async def test_death_of_one_adopted(place: Place) -> None:
    """The death of a process that is not our child is noticed as well."""
    found = await place.start()
    code = (
        "import asyncio, sys; from ipsec_agent.host.process import watch_death\n"
        "asyncio.run(watch_death(int(sys.argv[1]), lambda: print('woken')))"
    )
    watcher = started(code, str(found.pid))
    await asyncio.sleep(1.0 * SCALE)
    assert watcher.poll() is None

    os.kill(found.pid, signal.SIGKILL)

    said, _ = await asyncio.to_thread(watcher.communicate, timeout=DEADLINE)
    assert said == b"woken\n"


async def test_death_before_the_watch() -> None:
    """One that is dead already wakes, too."""
    gone = started("pass")
    await asyncio.to_thread(gone.communicate, timeout=DEADLINE)
    woken: list[bool] = []

    await within(DEADLINE, watch_death(gone.pid, lambda: woken.append(True)))

    assert woken == [True]


async def test_one_that_ignores_sigterm(place: Place) -> None:
    """After the deadline SIGKILL ends what SIGTERM did not."""
    code = (
        "import socket, time; s = socket.socket(socket.AF_UNIX); "
        f"s.bind('{place.vici}'); s.listen(); time.sleep(60)"
    )
    program = place.script(f'trap "" TERM; exec {sys.executable} -c "{code}"')
    found = await place.run(program, DEADLINE)
    began = time.monotonic()

    await stop_charon(found, 0.3)

    assert 0.3 <= time.monotonic() - began < DEADLINE
    assert place.find() is None


@pytest.mark.parametrize(
    ("lines", "message"),
    [
        ("echo first; echo 'no space left' >&2; exit 3", "exit code 3): no space left"),
        ("exit 0", "exit code 0)"),
        ("kill -9 $$", "ended at once (SIGKILL)"),
    ],
)
async def test_one_that_ends_at_once(place: Place, lines: str, message: str) -> None:
    """A charon that ends is noticed long before the deadline, and its last line is quoted."""
    began = time.monotonic()

    with pytest.raises(CharonStartError) as refusal:
        await place.run(place.script(lines), 60)

    assert message in refusal.value.message
    assert time.monotonic() - began < DEADLINE


async def test_one_that_never_listens(place: Place) -> None:
    """A charon that does not listen within the deadline is ended."""
    with pytest.raises(CharonStartError, match=r"did not listen on .* within 0\.3 s"):
        await place.run(place.script("exec sleep 60"), 0.3)

    assert not exists(int((place.directory / "charon.pid").read_text()))


async def test_a_cancelled_start(place: Place) -> None:
    """A start that is given up leaves no half a charon behind."""
    start = asyncio.create_task(place.run(place.script("exec sleep 60"), 60))
    async with asyncio.timeout(DEADLINE):
        while not (place.directory / "charon.pid").exists():  # noqa: ASYNC110 - a file
            await asyncio.sleep(0.01)

    start.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await start

    assert not exists(int((place.directory / "charon.pid").read_text()))


async def test_what_cannot_be_run(place: Place) -> None:
    """A program that the kernel does not run is named."""
    program = place.directory / "nonsense"
    program.write_bytes(b"\x7fELF nonsense")
    program.chmod(0o755)

    with pytest.raises(CharonStartError, match=r"cannot run .*nonsense: Exec format error"):
        await place.run(str(program), 5)


async def test_every_setting_is_known(place: Place) -> None:
    """What we write is a name that this charon or one of its plugins asks for."""
    found = await place.start()
    code = code_of(found.pid)

    # The names below filelog are the operator's, but for those that tests of the log show.
    for key in (*SETTINGS, "plugins.vici.socket"):
        if not key.startswith("filelog."):
            assert f"%s.{key}\0".encode() in code, key


@with_classic
@pytest.mark.parametrize("content", ["999999", ""])
async def test_stale_pid_file(place: Place, content: str) -> None:
    """A pid file that a crash left does not keep Debian's /usr/lib/ipsec/charon from starting."""
    found = await place.start(CLASSIC, before=f"echo '{content}' > /run/charon.pid;")

    assert found.ours


@with_classic
async def test_pid_file_of_somebody_else(place: Place) -> None:
    """Where the pid file names a process that lives, charon's own words say so: it listens before
    it looks there, and is not taken for one that has started."""
    for _ in range(3):
        with pytest.raises(CharonStartError, match="charon already running"):
            await place.start(CLASSIC, before=f"echo {os.getpid()} > /run/charon.pid;")


def test_locate(tmp_path: Path) -> None:
    """The configured program, else the first of the known places that can be run."""
    program = tmp_path / "charon"
    program.touch(mode=0o755)

    assert locate_program(str(program)) == str(program)
    assert locate_program("") == SYSTEMD
    with pytest.raises(CharonStartError, match="charon is not at /nowhere"):
        locate_program("/nowhere")
