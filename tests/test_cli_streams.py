"""The program where its output, its open files or its memory are not what they usually are."""

import contextlib
import errno
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from ipsec_agent import cli
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

PROGRAM = (sys.executable, "-m", "ipsec_agent")


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A manifest that is accepted."""
    ca = make_ca()
    path = tmp_path_factory.mktemp("config") / "ipsec.yml"
    path.write_text(manifest(["10.0.1.0/24"], [], leaf=make_leaf(ca), cas=[ca]))
    path.chmod(0o600)
    return path


def verb(name: str, good: Path) -> list[str]:
    """A call that prints something."""
    nowhere = str(good.parent / "none.sock")
    return {
        "check": ["check", str(good)],
        "plan": ["plan", str(good), "--address", "10.0.1.7"],
        "status": ["status", "--json", "--socket", nowhere],
        "guard": ["guard", "status", "--config", str(good)],
        "help": ["--help"],
        "help of a verb": ["run", "--help"],
    }[name]


as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root sees the guard")
VERBS = (
    "check",
    "plan",
    "status",
    pytest.param("guard", marks=as_root),
    "help",
    "help of a verb",
)


def run(
    *arguments: str, redirected: str = "", before: Callable[[], None] | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the program, with a shell's redirections."""
    return subprocess.run(
        ["/bin/sh", "-c", f'exec "$@" {redirected}', "sh", *PROGRAM, *arguments],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        preexec_fn=before,
    )


@pytest.mark.parametrize("name", VERBS)
@pytest.mark.parametrize(
    ("redirected", "why"),
    [(">/dev/full", "No space left on device"), (">&-", "standard output is closed")],
)
def test_output_that_is_lost(name: str, redirected: str, why: str, good: Path) -> None:
    """One line says it, and the exit code is no good one."""
    done = run(*verb(name, good), redirected=redirected)

    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == f"ipsec-agent: cannot write the output: {why}"
    assert "Traceback" not in done.stderr


class Gone:
    """A program whose output had a reader, who has gone: before it began, or once he has read."""

    def __init__(self, *arguments: str, reads: int = 0) -> None:
        # As it is for an operator: what is written waits until it is flushed.
        self.program = subprocess.Popen(
            [*PROGRAM, *arguments],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={key: text for key, text in os.environ.items() if key != "PYTHONUNBUFFERED"},
        )
        assert self.program.stdout is not None
        self.read = [self.program.stdout.readline() for _ in range(reads)]
        self.program.stdout.close()
        try:
            # That it ends at all is what matters.
            _, self.said = self.program.communicate(timeout=120)
        finally:
            self.program.kill()


@pytest.mark.parametrize("name", VERBS)
def test_a_reader_that_has_gone(name: str, good: Path) -> None:
    """It ends without a word more, as a shell says of most programs."""
    gone = Gone(*verb(name, good))

    assert gone.program.returncode == 141
    assert "cannot write" not in gone.said
    assert "Traceback" not in gone.said


@pytest.mark.parametrize("words", [[], ["--json"]])
@pytest.mark.parametrize("runs", [False, True])
def test_a_reader_that_has_seen_enough(
    tmp_path: Path,
    words: list[str],
    *,
    runs: bool,
) -> None:
    """`status --watch` ends with its reader, whether an agent answers or not, and whether it has
    anything to write or not; what it writes is there at once.
    """
    path = str(tmp_path / "control.sock")
    nothing = not runs and not words
    with answering(path) if runs else contextlib.nullcontext():
        gone = Gone("status", "--watch", *words, "--socket", path, reads=not nothing)

    assert gone.program.returncode == 141
    assert all("starting" in line or "stopped" in line for line in gone.read)
    assert gone.said.count("no agent is running") >= (not runs)
    assert "Traceback" not in gone.said


@contextlib.contextmanager
def answering(path: str) -> Iterator[None]:
    """An agent that has only just started."""
    status = {"schema": 1, "state": "starting", "healthy": False, "problems": []}
    answer = json.dumps({"ok": True, "status": status}).encode() + b"\n"
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(path)
        listener.listen()

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    caller, _ = listener.accept()
                    with caller:
                        caller.recv(4096)
                        caller.sendall(answer)

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield
        finally:
            listener.shutdown(socket.SHUT_RDWR)
            thread.join()


@pytest.mark.parametrize("redirected", ["2>/dev/full", "2>&-", "2>&- <&-"])
@pytest.mark.parametrize(("name", "code"), [("status", 3), ("reload", 1), ("stop", 1)])
def test_errors_that_are_lost(name: str, code: int, redirected: str, good: Path) -> None:
    """What cannot be complained of changes no exit code."""
    nowhere = str(good.parent / "none.sock")

    done = run(name, "--socket", nowhere, redirected=redirected)

    assert (done.returncode, done.stderr) == (code, "")


@pytest.mark.parametrize("redirected", ["<&-", "<&- >&-"])
@pytest.mark.parametrize("name", ["reload", "reload --dry-run", "stop", "renew", "status"])
def test_a_closed_input(name: str, redirected: str, good: Path) -> None:
    """Nobody can be asked, as without a terminal: what is wrong is said in a line."""
    nowhere = str(good.parent / "none.sock")

    done = run(*name.split(), "--socket", nowhere, redirected=redirected)

    assert done.stderr.startswith("ipsec-agent: ")
    assert "Traceback" not in done.stderr


def test_a_refused_config_without_stderr(good: Path) -> None:
    """The same of a config that is refused."""
    bad = good.with_name("bad.yml")
    bad.write_text("ipsec: {}\n")

    assert run("check", str(bad), redirected="2>/dev/full").returncode == 1


def few_files() -> None:
    """As `ulimit -n 16`."""
    resource.setrlimit(resource.RLIMIT_NOFILE, (16, 16))


@pytest.mark.parametrize(("name", "code"), [("check", 0), ("plan", 0), ("status", 3), ("help", 0)])
def test_few_files(name: str, code: int, good: Path) -> None:
    """What needs no more than 16 open files works with 16."""
    few = run(*verb(name, good), before=few_files)

    assert few.returncode == code
    assert "Traceback" not in few.stderr


def test_too_few_files_for_an_agent(good: Path) -> None:
    """The agent says how many it needs before it touches anything."""
    done = run("run", "--config", str(good), before=few_files)

    assert done.returncode == 1
    assert done.stderr.splitlines() == [
        "ipsec-agent: the agent may open 16 files only, and needs 256",
        "  hint: raise the limit of open files: `ulimit -n 65536`, or LimitNOFILE=65536 in the"
        " agent's unit",
    ]


def test_too_few_files_for_a_verb(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A verb that does not get its files says so in a line, with the command that helps."""

    def fails(_chosen: object) -> int:
        raise OSError(errno.EMFILE, "Too many open files", "/etc/x")

    monkeypatch.setattr(cli, "_verb", fails)

    assert cli.main(["status"]) == 1
    assert capsys.readouterr().err == (
        "ipsec-agent: /etc/x: Too many open files\n"
        "  hint: raise the limit of open files: `ulimit -n 65536`, or LimitNOFILE=65536 in the"
        " agent's unit\n"
    )


def test_own_limits(good: Path) -> None:
    """The agent's process has no cores and enough files, and what it starts has no cores either."""
    script = """
import os, resource, subprocess, sys
from ipsec_agent.host.inspection import forbid_inspection
from ipsec_agent.host.own_process import allow_files, forbid_cores
resource.setrlimit(resource.RLIMIT_NOFILE, (100, 1000))
forbid_cores(); allow_files(); forbid_inspection()
import ctypes
print(resource.getrlimit(resource.RLIMIT_CORE), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0))
print(resource.getrlimit(resource.RLIMIT_NOFILE)[0] >= 1000)
child = "import resource; print(resource.getrlimit(resource.RLIMIT_CORE), end=' ');"
child += "print(int(open('/proc/self/coredump_filter').read(), 16))"
print(subprocess.check_output([sys.executable, "-c", child], text=True))
"""
    said = subprocess.check_output([sys.executable, "-c", script], text=True).split("\n")

    assert said[:3] == ["(0, 0) 0", "True", "(0, 0) 0"]


def test_run_forbids_inspection() -> None:
    """The agent has done so before it reads the key, and so has its child, which does."""
    script = """
import ctypes, os
from ipsec_agent import agent, cli
from ipsec_agent.verbs import run
def inspected(*_, **more):
    return os.getpid(), ctypes.CDLL(None).prctl(3, 0, 0, 0, 0)
async def enforce(_path, read, *, force):
    (reader, its), (own, ours) = read(), inspected()
    print(reader != own, its, ours)
run.load, agent.run = inspected, enforce
cli.main(["run"])
"""
    assert subprocess.check_output([sys.executable, "-c", script], text=True) == "True 0 0\n"


@pytest.mark.parametrize("name", ["check", "run"])
def test_no_core(name: str, good: Path, tmp_path: Path) -> None:
    """A verb that has the key and is killed by a signal leaves no core, whatever the limit was."""

    def unlimited() -> None:
        hard = resource.getrlimit(resource.RLIMIT_CORE)[1]
        resource.setrlimit(resource.RLIMIT_CORE, (hard, hard))
        os.chdir(tmp_path)

    script = (
        "import os, sys; from ipsec_agent import cli; cli._verb = lambda _chosen: os.abort();"
        f"cli.main(['{name}'])"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], preexec_fn=unlimited, timeout=60, check=False
    )

    assert done.returncode == -signal.SIGABRT
    assert list(tmp_path.iterdir()) == []


def test_log_on_a_full_disk() -> None:
    """What cannot be logged is lost; the agent goes on."""
    script = """
from ipsec_agent.log import set_up
import structlog
set_up()
structlog.get_logger("x").error("lost")
print("goes on")
"""
    done = subprocess.run(
        ["/bin/sh", "-c", 'exec "$@" 2>/dev/full', "sh", sys.executable, "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )

    assert (done.returncode, done.stdout) == (0, "goes on\n")
