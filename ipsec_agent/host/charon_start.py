"""charon is started: as a program of its own, or by its systemd unit.

charon outlives the agent: it runs in a session of its own, and no pipe ties it to us. Not by
asyncio's subprocesses: those kill a child that still runs when the loop closes (Python 3.12).
"""

import asyncio
import contextlib
import os
import subprocess
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, CharonConfig, Config
from ipsec_agent.core.deaths import signal_name
from ipsec_agent.core.observed import CharonProcess
from ipsec_agent.core.strongswan_conf import render
from ipsec_agent.errors import CharonError, CharonGoneError, CharonStartError
from ipsec_agent.host import own_time
from ipsec_agent.host.charon import open_charon
from ipsec_agent.host.files import write_whole
from ipsec_agent.host.process import KILL_DEADLINE, facts, listener, listens, note_pid
from ipsec_agent.host.systemd import start_unit, unit_state

PROGRAMS = (
    "/usr/sbin/charon-systemd",
    "/usr/lib/ipsec/charon",
    "/usr/libexec/ipsec/charon",
    "/usr/lib/strongswan/charon",
    "/var/vcap/packages/strongswan/libexec/ipsec/charon",
)
"""charon-systemd first: it needs no pid file, and Debian's AppArmor lets it read our config."""

PLUGIN_PLACES = ("plugins", "lib/ipsec/plugins")
"""Below a directory that charon is in: /usr/lib/ipsec, or what strongSwan's configure calls its
prefix."""

PLUGIN_PREFIX = "libstrongswan-"

POLL = 0.01
"""Seconds between looks at a charon that starts: it takes few of them, and until it listens a look
does not reach it."""

ANSWERS_WITHIN = 2.0
"""Seconds for the first answer of one that listens; the classic charon listens before it looks at
its pid file, and ends where that is somebody else's, but answers only after that."""

JOB_DEADLINE = 3.0
"""Seconds within which systemd begins with a start that it was asked for."""

DEFAULT_RUN_DIR = Path(AgentConfig().run_dir)

LOG_DIRECTORY = Path("/var/log/ipsec-agent")
"""Where charon logs without a journal; with a `run_dir` of one's own, there."""

JOURNAL, SYSLOG = Path("/run/systemd/journal/socket"), Path("/dev/log")
"""Who must be there to be told: charon-systemd tells the journal, each other charon syslog."""

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


def program_warnings(configured: str) -> tuple[str, ...]:
    """What to say to who reloads where charon, which may run still, could not be started again."""
    try:
        locate_program(configured)
    except CharonStartError as error:
        return (f"warning: {error.message}, and its next start fails; {error.hint}",)
    return ()


def installed_plugins(program: str) -> frozenset[str]:
    """The names of the plugins beside this charon; empty where their directory is elsewhere."""
    for above in Path(program).resolve().parents[:-1]:
        for place in PLUGIN_PLACES:
            names = {
                path.stem.removeprefix(PLUGIN_PREFIX)
                for path in (above / place).glob(f"{PLUGIN_PREFIX}*.so")
            }
            # Other packages have such a directory, too; charon cannot do without this one.
            if "vici" in names:
                return frozenset(names)
    return frozenset()


def write_conf(path: Path, config: Config, *, vici_socket: Path) -> str:
    """Write charon's strongswan.conf; returns the path of charon, on which some of it depends.

    Raises:
        CharonStartError: there is no charon.
    """
    program = locate_program(config.agent.charon.program)
    installed = installed_plugins(program)
    charon = replace(config.agent.charon, log=_log(config, program))
    config = replace(config, agent=replace(config.agent, charon=charon))
    text = render(config, vici_socket=str(vici_socket), program=program, installed=installed)
    # A plugin's settings may hold a password; a charon that is not root's reads them, too.
    other = {"user", "group"} & {key for key, _ in charon.settings}
    write_whole(path, text, mode=0o644 if other else 0o600)
    return program


def _log(config: Config, program: str) -> str:
    """Where charon logs: what would be lost, since nobody hears it, goes to a file."""
    configured = config.agent.charon.log
    if configured != CharonConfig().log or _heard(program):
        return configured
    path = log_file(Path(config.agent.run_dir))
    try:
        path.parent.mkdir(mode=0o750, exist_ok=True)
    except OSError:
        return configured
    return str(path)


def _heard(program: str) -> bool:
    return (JOURNAL if program.endswith("charon-systemd") else SYSLOG).exists()


def log_file(run_dir: Path) -> Path:
    """Where charon logs where there is neither journal nor syslog."""
    return (LOG_DIRECTORY if run_dir == DEFAULT_RUN_DIR else run_dir) / "charon.log"


async def start_charon(
    program: str,
    *,
    conf_path: Path,
    run_dir: Path,
    vici_socket: Path,
    library_path: str,
    deadline: float,
) -> CharonProcess:
    """Start charon and wait until it answers on its VICI socket.

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
    note_pid(conf_path, child.pid)
    try:
        async with own_time.timeout(deadline):
            while not (listens(child.pid, vici_socket) and await _answers(vici_socket)):
                if child.poll() is not None:
                    raise _ended(program, child.returncode, output)
                await asyncio.sleep(POLL)
    except TimeoutError as error:
        _kill(child)
        raise CharonStartError(
            f"charon did not listen on {vici_socket} within {deadline:g} s",
            hint=f"{_see_log(program, run_dir)}, or raise prestart_timeout",
        ) from error
    except asyncio.CancelledError:
        _kill(child)
        raise
    found = facts(child.pid, conf_path)
    if found is None:
        raise _ended(program, child.wait(), output)
    # From here on watch_death reaps it; Popen must not complain that it lives on.
    child.returncode = 0
    return found


def start_charon_unit(unit: str) -> Callable[..., Awaitable[CharonProcess]]:
    """The same as `start_charon`, by a systemd unit."""

    async def start(
        program: str,
        *,
        conf_path: Path,
        run_dir: Path,
        vici_socket: Path,
        library_path: str,
        deadline: float,
    ) -> CharonProcess:
        lines = [f"CHARON={program}", f"STRONGSWAN_CONF={conf_path}"]
        if library_path:
            lines.append(f"LD_LIBRARY_PATH={library_path}")
        write_environment(run_dir / "charon.env", lines)
        clock = asyncio.get_running_loop().time
        began = clock()
        await start_unit(unit, deadline=deadline)
        while True:
            pid = listener(vici_socket)
            found = facts(pid, conf_path) if pid is not None else None
            if found is not None and found.ours and await _answers(vici_socket):
                note_pid(conf_path, found.pid)
                return found
            # Until systemd has come to the job that it was given, the unit is as it was before.
            if clock() - began > JOB_DEADLINE:
                await _refuse_ended(unit)
            if clock() - began > deadline:
                raise CharonStartError(
                    f"{unit} did not listen on {vici_socket} within {deadline:g} s",
                    hint=f"see `systemctl status {unit}` and `journalctl -u {unit}`",
                )
            await asyncio.sleep(POLL)

    return start


async def _answers(vici_socket: Path) -> bool:
    """Whether a charon that listens has started; one that hangs has, which the next pass finds."""
    try:
        async with open_charon(vici_socket, ANSWERS_WITHIN) as client:
            await client.version()
    except CharonGoneError:
        return False
    except CharonError:
        return True
    return True


async def _refuse_ended(unit: str) -> None:
    state = await unit_state(unit, deadline=JOB_DEADLINE)
    if state.active in {"failed", "inactive"}:
        raise CharonStartError(
            f"{unit} ended at once ({state.result}, status {state.status})",
            hint=f"see `systemctl status {unit}` and `journalctl -u {unit}`",
        )


def write_environment(path: Path, lines: Iterable[str]) -> None:
    """Write what the unit's EnvironmentFile= reads (systemd.exec(5)).

    Raises:
        CharonStartError: a value that it could not hold.
    """
    text = "".join(f'{name}="{value}"\n' for name, _, value in (it.partition("=") for it in lines))
    if any(letter in text for letter in "\\`$") or text.count('"') != 2 * text.count("\n"):
        raise CharonStartError(
            "a path of charon has characters that a systemd unit cannot take",
            hint="use only letters, digits, '/', '.', '-' and '_' in paths",
        )
    write_whole(path, text, mode=0o644)


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
            f"cannot run {program}: {error.strerror}", hint="correct agent.charon.program"
        ) from error


def _kill(child: subprocess.Popen[bytes]) -> None:
    child.kill()
    child.wait(KILL_DEADLINE)


def _see_log(program: str, run_dir: Path) -> str:
    place = (
        f"`journalctl -t {Path(program).name}`, syslog" if _heard(program) else log_file(run_dir)
    )
    return f"see the log of {program}: {place}, or the file that agent.charon.log names"


def _ended(program: str, code: int, output: Path) -> CharonStartError:
    how, hint = signal_name(code) or f"exit code {code}", _see_log(program, output.parent)
    with contextlib.suppress(OSError):
        lines = [line for line in output.read_text(errors="replace").splitlines() if line.strip()]
        if lines:
            return CharonStartError(f"charon ended at once ({how}): {lines[-1][:300]}", hint=hint)
    if code == INITIALISATION_FAILED:
        return CharonStartError(
            f"charon ended at once ({how}): it lacks a plugin or a permission",
            hint=f"apt install libstrongswan-standard-plugins (Debian); {hint}",
        )
    return CharonStartError(f"charon ended at once ({how})", hint=hint)
