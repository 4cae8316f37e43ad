"""Who runs on this VM, by real processes and the files that BOSH, bpm and jobs leave."""

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from ipsec_agent.core.drain import Claim, Job
from ipsec_agent.host import jobs
from ipsec_agent.host.jobs import Jobs, Places

NO_MONIT = 1
"""A port on which nobody listens."""


@pytest.fixture
def sleeper() -> Iterator[subprocess.Popen[bytes]]:
    """A process of a job."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        process.kill()


def claimed(path: Path, pid: object) -> Path:
    """A pid file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"{pid}\n")
    return path


def reader(vcap: Path, *own: Path) -> Jobs:
    """Looks below a directory."""
    return Jobs(Places(vcap, NO_MONIT), own)


def test_nothing_is_there(tmp_path: Path) -> None:
    """A VM without BOSH has no other jobs."""
    assert reader(tmp_path / "none").look() == ()


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("sys/run/redis/redis.pid", "redis"),
        ("sys/run/redis/server.pid", "redis/server"),
        ("sys/run/bpm/redis/redis.pid", "redis"),
        ("sys/run/bpm/redis/worker.pid", "redis/worker"),
    ],
)
def test_pid_files(tmp_path: Path, sleeper: subprocess.Popen[bytes], file: str, name: str) -> None:
    """A job's own, and bpm's."""
    claimed(tmp_path / file, sleeper.pid)
    found = reader(tmp_path)

    assert found.look() == (Job(name, sleeper.pid),)
    sleeper.kill()
    sleeper.wait(5)
    assert found.look() == ()


def test_a_name_that_is_no_utf_8(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Whoever may make a pid file chooses its name; the drain can write it down all the same."""
    folder = tmp_path / "sys/run/redis"
    folder.mkdir(parents=True)
    claimed(folder / os.fsdecode(b"\xff.pid"), sleeper.pid)

    found = reader(tmp_path).look()

    assert [job.name for job in found] == ["redis/\N{REPLACEMENT CHARACTER}"]
    assert b"redis" in msgspec.json.encode(found)


def test_a_zombie_has_exited(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """Even where nobody has asked for its exit code."""
    claimed(tmp_path / "sys/run/redis/redis.pid", sleeper.pid)
    sleeper.kill()
    os.waitid(os.P_PID, sleeper.pid, os.WEXITED | os.WNOWAIT)

    assert reader(tmp_path).look() == ()


def test_a_reused_pid(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A file that was written long before the process began names another one."""
    path = claimed(tmp_path / "sys/run/redis/redis.pid", sleeper.pid)
    long_ago = time.time() - 60
    os.utime(path, (long_ago, long_ago))

    assert reader(tmp_path).look() == ()


def test_the_file_goes_first(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A job that removes its file before it ends is waited for all the same."""
    path = claimed(tmp_path / "sys/run/redis/redis.pid", sleeper.pid)
    found = reader(tmp_path)
    assert found.look() == (Job("redis", sleeper.pid),)
    path.unlink()

    assert found.look() == (Job("redis", sleeper.pid),)


@pytest.mark.parametrize("content", ["", "\n", "none", "-1", "0", "99999999", "9" * 40, "1.5"])
def test_no_pid(tmp_path: Path, content: str) -> None:
    """A file that has no pid of anybody is nobody's."""
    claimed(tmp_path / "sys/run/redis/redis.pid", content)

    assert reader(tmp_path).look() == ()


def test_what_is_no_file(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """A FIFO is not waited for, a directory and a link to nowhere are passed over."""
    place = tmp_path / "sys/run/redis"
    claimed(place / "good.pid", sleeper.pid)
    os.mkfifo(place / "fifo.pid")
    (place / "directory.pid").mkdir()
    (place / "nowhere.pid").symlink_to("nothing")
    began = time.monotonic()

    assert reader(tmp_path).look() == (Job("redis/good", sleeper.pid),)
    assert time.monotonic() - began < 20


def test_a_second_line(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """The first word counts, as in the files of PostgreSQL."""
    claimed(tmp_path / "sys/run/postgres/postgres.pid", f"{sleeper.pid}\n/var/vcap/store\n5432")

    assert reader(tmp_path).look() == (Job("postgres", sleeper.pid),)


def test_own(tmp_path: Path, sleeper: subprocess.Popen[bytes]) -> None:
    """The agent and its charon are nobody to wait for, whatever another file calls them."""
    claimed(tmp_path / "sys/run/other/other.pid", sleeper.pid)
    own = claimed(tmp_path / "agent.pid", sleeper.pid)

    assert reader(tmp_path, own, tmp_path / "charon.pid").look() == ()


def script(vcap: Path, job: str) -> Path:
    """A job's post-stop."""
    path = vcap / "jobs" / job / "bin/post-stop"
    path.parent.mkdir(parents=True)
    path.write_text("#!/bin/sh -e\nread line\n")
    path.chmod(0o755)
    return path


def test_post_stop(tmp_path: Path) -> None:
    """Another job's that runs, and not ours."""
    with (
        subprocess.Popen([script(tmp_path, "redis")], stdin=subprocess.PIPE) as other,
        subprocess.Popen([script(tmp_path, "ipsec")], stdin=subprocess.PIPE),
    ):
        found = reader(tmp_path)
        assert found.look() == (Job("redis/post-stop", other.pid),)
        other.communicate(b"\n", timeout=5)
        assert found.look() == ()


def test_monit(
    tmp_path: Path, sleeper: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What monit watches counts, too, and is remembered once monit watches it no more."""
    now = [100.0]
    claims = [Claim("nfs", sleeper.pid, time.time())]
    monkeypatch.setattr(jobs, "monit_claims", lambda _file, _port: tuple(claims))
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    found = reader(tmp_path)
    assert found.look() == (Job("nfs", sleeper.pid),)
    claims.clear()
    now[0] += jobs.ASK_MONIT

    assert found.look() == (Job("nfs", sleeper.pid),)
    sleeper.send_signal(signal.SIGKILL)
    sleeper.wait(5)
    assert found.look() == ()
