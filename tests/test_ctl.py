"""monit/ipsec-agent-ctl says what the agent complained of, and what is missing.

The agent is a script here; tests/monit has the real one under a real monit. What the script waits
with, `sleep` and `timeout`, is quicker here: it counts its waits, which stay as many.
"""

import contextlib
import fcntl
import os
import re
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import until
from tests.data_files import ROOT

CTL = ROOT / "monit" / "ipsec-agent-ctl"
REFUSED = """\
{"complaint": "an event", "level": "warning", "event": "config"}
/c/ipsec.yml:3: warning: ipsec.no_ipsec_subnets[0]: x is listed twice; remove one
/c/ipsec.yml:7: ipsec.ipsec_subnets[0]: 10.9.0.0/33 is not a subnet; write an address
/c/ipsec.yml:9: ipsec.ca_certificates: is missing; list the CA
ipsec-agent: /c/ipsec.yml is refused: 2 errors
  hint: nothing was changed
"""
STARTED = """\
ipsec-agent: IPsec did not start within prestart_timeout (30 s): charon is not installed
  hint: fix the cause, or raise prestart_timeout
"""
TRACEBACK = """\
Traceback (most recent call last):
  File "<string>", line 1, in <module>
ModuleNotFoundError: No module named 'vici'
"""


SLEEP = """\
#!/bin/sh
echo >>{place}/slept
exec /bin/sleep 0.02
"""
"""0.2 and 0.5 seconds are a moment."""

TIMEOUT = """\
#!/bin/sh
kill=
case $1 in --kill-after=*) kill=--kill-after=0.${{1#*=}}; shift ;; esac
limit=0.$1
shift
exec /usr/bin/timeout $kill "$limit" "$@"
"""
"""5 seconds are half a one."""


def hurried(place: Path, **programs: str) -> Path:
    """The script where these programs are found first."""
    (place / "bin").mkdir()
    for name, text in programs.items():
        (place / "bin" / name).write_text(text.format(place=place))
        (place / "bin" / name).chmod(0o755)
    text, found = re.subn("^PATH=", f"PATH={place}/bin:", CTL.read_text(), flags=re.MULTILINE)
    assert found == 1
    script = place / "ipsec-agent-ctl"
    script.write_text(text)
    script.chmod(0o755)
    return script


def control(
    place: Path, verb: str, agent: str, script: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run the script for an agent whose files are in a directory of the test's."""
    words = (f"run_dir={place}", f"log={place}/log/agent.log", f"agent={agent}", "timeout=5")
    return subprocess.run(
        [script or hurried(place, sleep=SLEEP), verb, *words],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
    )


def ending(place: Path, said: str) -> str:
    """An agent that says this and ends."""
    (place / "said").write_text(said)
    agent = place / "agent"
    agent.write_text(f'#!/bin/sh\n[ "$1" = run ] && cat {place}/said >&2\nexit 1\n')
    agent.chmod(0o755)
    return str(agent)


@pytest.mark.parametrize(
    ("said", "first"),
    [
        (REFUSED, REFUSED.splitlines()[2]),
        (STARTED, "; ".join(line.strip() for line in STARTED.splitlines())),
        (TRACEBACK, "ModuleNotFoundError: No module named 'vici'"),
        ("", "see {log}"),
    ],
)
def test_the_first_complaint(tmp_path: Path, said: str, first: str) -> None:
    """Of this start, whatever an earlier one said; warnings and events are no cause."""
    log = tmp_path / "log" / "agent.log"
    log.parent.mkdir()
    log.write_text("ipsec-agent: what it said a day before\n")

    done = control(tmp_path, "start", ending(tmp_path, said))

    assert done.returncode == 1
    assert done.stderr == f"ipsec-agent-ctl: the agent has ended: {first.format(log=log)}\n"


def test_no_program(tmp_path: Path) -> None:
    """It is said that it is not there, and not that an agent does not answer; no log is made."""
    done = control(tmp_path, "start", "no-such-agent")

    assert done.returncode == 1
    assert "there is no program no-such-agent in " in done.stderr
    assert ":/usr/local/sbin:" in done.stderr
    assert "agent=/PATH/TO/ipsec-agent" in done.stderr
    assert not (tmp_path / "log").exists()


@contextlib.contextmanager
def one_that_runs(place: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A program that holds the agent's lock, and can be asked nothing."""
    with (place / "agent.pid").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        # It inherits the lock, and holds it as long as it lives.
        running = subprocess.Popen(["sleep", "60"], pass_fds=[lock.fileno()])
        lock.write(f"{running.pid}\n")
    try:
        yield running
    finally:
        running.kill()
        running.wait(20)


@pytest.mark.parametrize("verb", ["stop", "drain"])
def test_stop_without_the_program(tmp_path: Path, verb: str) -> None:
    """An agent that runs and cannot be asked is ended all the same, and the cause is told."""
    with one_that_runs(tmp_path) as running:
        done = control(tmp_path, verb, "no-such-agent")
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
    assert "there is no program no-such-agent" in done.stderr
    assert "does not answer" not in done.stderr


def test_an_agent_that_ends_before_it_is_killed(tmp_path: Path) -> None:
    """Then there is nobody to kill, and IPsec ends all the same."""
    ended = subprocess.Popen(["true"])
    ended.wait(20)
    conf = f"STRONGSWAN_CONF={tmp_path}/strongswan.conf"
    with (
        subprocess.Popen(["env", conf, "sleep", "60"]) as charon,
        one_that_runs(tmp_path) as running,
    ):
        (tmp_path / "agent.pid").write_text(f"{ended.pid}\n")
        (tmp_path / "charon.pid").write_text(f"{charon.pid}\n")
        # The script finds nobody with that pid after 25 looks, and looks 25 times more.
        slept = tmp_path / "slept"
        slept.touch()

        def end() -> None:
            until(lambda: len(slept.read_text()) > 25, "the script looks once more", 30)
            running.kill()

        killer = threading.Thread(target=end)
        killer.start()
        done = control(tmp_path, "stop", "no-such-agent")
        killer.join(30)
        left = charon.poll()
        charon.kill()

    assert left == -signal.SIGTERM
    assert done.returncode == 0


def test_a_program_that_hangs(tmp_path: Path) -> None:
    """One that asks the agent and does not even heed SIGTERM holds the stop up no longer."""
    agent = tmp_path / "agent"
    agent.write_text("#!/bin/sh\ntrap '' TERM\nexec /bin/sleep 120\n")
    agent.chmod(0o755)
    script = hurried(tmp_path, sleep=SLEEP, timeout=TIMEOUT)
    with one_that_runs(tmp_path) as running:
        done = control(tmp_path, "stop", str(agent), script)
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
    assert "the agent does not answer: it is killed" in done.stderr


def test_a_drain_that_fails(tmp_path: Path) -> None:
    """IPsec is stopped without it: else charon would have nobody who ends it."""
    with one_that_runs(tmp_path) as running:
        done = control(tmp_path, "drain", ending(tmp_path, ""))
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
    log = tmp_path / "log/agent.log"
    assert f"the drain has failed, see {log}; IPsec ends without it" in done.stderr


def draining(place: Path, body: str) -> str:
    """An agent whose drain does this."""
    agent = place / "agent"
    agent.write_text(f'#!/bin/sh\n[ "$1" = drain ] || exit 1\n{body}\n')
    agent.chmod(0o755)
    return str(agent)


def test_a_drain_that_fails_beside_the_file_of_an_earlier_one(tmp_path: Path) -> None:
    """That file says nothing of this drain: it is waited for what becomes of it."""
    (tmp_path / "drain.json").write_text("{}")
    with one_that_runs(tmp_path) as running:
        done = control(tmp_path, "drain", draining(tmp_path, "sleep 1; sleep 1; sleep 1\nexit 1"))
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
    assert "the drain has failed" in done.stderr


def test_a_drain_that_does_not_begin(tmp_path: Path) -> None:
    """Nobody knows whether it would end charon, so it is told to give up, and IPsec ends."""
    (tmp_path / "drain.json").write_text("{}")
    body = f"trap 'echo gave up > {tmp_path}/said; exit' HUP\nwhile :; do /bin/sleep 0.1; done"
    with one_that_runs(tmp_path) as running:
        done = control(tmp_path, "drain", draining(tmp_path, body))
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
    assert "the drain has not begun within 10 seconds" in done.stderr
    assert (tmp_path / "said").read_text() == "gave up\n"


def test_a_drain_that_begins(tmp_path: Path) -> None:
    """The agent is asked to end, and the drain goes on."""
    (tmp_path / "drain.json").write_text("{}")
    wait = f"while [ ! -e {tmp_path}/over ]; do sleep 0.1; done"
    body = f"echo {{}} > {tmp_path}/new; mv {tmp_path}/new {tmp_path}/drain.json\n{wait}"
    with one_that_runs(tmp_path) as running:
        # It has as long to end as it has in earnest.
        done = control(tmp_path, "drain", draining(tmp_path, body), CTL)
        assert running.wait(20) == -signal.SIGTERM
    (tmp_path / "over").touch()

    assert (done.returncode, done.stderr) == (0, "")


def unwritable(place: Path, kind: str) -> None:
    """Something in the place of the log, or of its directory."""
    if kind == "file":
        (place / "log").write_text("not a directory")
        return
    (place / "log").mkdir()
    if kind == "directory":
        (place / "log/agent.log").mkdir()
    else:
        os.mkfifo(place / "log/agent.log")


@pytest.mark.parametrize("kind", ["file", "directory", "pipe"])
@pytest.mark.parametrize("verb", ["stop", "drain"])
def test_without_a_log(tmp_path: Path, verb: str, kind: str) -> None:
    """What cannot be written down is done all the same."""
    unwritable(tmp_path, kind)
    with one_that_runs(tmp_path) as running:
        done = control(tmp_path, verb, draining(tmp_path, "exit 1"))
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
    assert verb == "stop" or "cannot write the log" in done.stderr


def test_a_start_without_a_log(tmp_path: Path) -> None:
    """It is refused in one sentence that says what to do."""
    unwritable(tmp_path, "pipe")

    done = control(tmp_path, "start", ending(tmp_path, ""))

    assert done.returncode == 1
    assert "cannot write the log" in done.stderr


def test_nobody_to_tell(tmp_path: Path) -> None:
    """An error output that takes nothing does not keep IPsec from ending."""
    words = (f"run_dir={tmp_path}", f"log={tmp_path}/log", "agent=no-such-agent", "timeout=5")
    with one_that_runs(tmp_path) as running, Path("/dev/full").open("w") as full:
        script = hurried(tmp_path, sleep=SLEEP)
        done = subprocess.run([script, "stop", *words], check=False, stderr=full, timeout=60)
        assert running.wait(20) == -signal.SIGKILL

    assert done.returncode == 0
