"""A machine with the real systemd and this machine's kernel: an overlay of this root, or another.

Faster than a guest where no ESP is needed. What is done in the overlay is in memory, and ends with
it.
"""

import contextlib
import subprocess
import tempfile
import time
import uuid
from collections.abc import Iterator
from pathlib import Path

from tests.data_files import ROOT

SYSTEMD = Path("/lib/systemd/systemd")

DEVICES = "null zero full random urandom tty"

GONE_WITHIN = 20.0

OVERLAY = """\
mount -t tmpfs tmpfs {place}
mkdir {place}/upper {place}/work {place}/root
mount -t overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work overlay {place}/root
root={place}/root
# dpkg renames and removes here all the time; the overlay of Linux 6.18 then shows stale files.
mkdir {place}/dpkg
cp -a /var/lib/dpkg/. {place}/dpkg
mount --bind {place}/dpkg $root/var/lib/dpkg
rm -rf $root/etc/systemd/system/*.wants $root/usr/sbin/policy-rc.d
# A boot empties /tmp, and this tree may be there.
mkdir -p $root/etc/tmpfiles.d
ln -sf /dev/null $root/etc/tmpfiles.d/tmp.conf
"""
"""This machine's own root, in which nothing is enabled."""

OWN = """\
root={root}
mount --bind $root $root
{links}
"""
"""A root of the test's own, which outlives the container, and what makes its links."""

INIT = """\
set -e
mount --make-rprivate /
{prelude}
mkdir -p $root/results
mount --bind {results} $root/results
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
mount -t tmpfs tmpfs $root/run
mount -t tmpfs -o mode=755 tmpfs $root/dev
for name in {devices}; do touch $root/dev/$name; mount --bind /dev/$name $root/dev/$name; done
ln -s /proc/self/fd $root/dev/fd
cat > $root/etc/systemd/system/lab.service <<END
{unit}
END
cd $root
pivot_root . .
umount --lazy .
exec env -i container=other /lib/systemd/systemd --unit={first} --show-status=no
"""

UNIT = """\
[Unit]
After=basic.target
Requires=basic.target
SuccessAction=exit
FailureAction=exit
[Service]
Type=oneshot
WorkingDirectory={root}
ExecStart={command}
StandardOutput=append:/results/driver.log
StandardError=append:/results/driver.log
TimeoutStartSec={deadline:.0f}s
"""


def cgroup2() -> Path:
    """Where the hierarchy of control groups is that systemd needs."""
    mounts = (line.split() for line in Path("/proc/mounts").read_text().splitlines())
    return next(Path(place) for _, place, kind, *_ in mounts if kind == "cgroup2")


def in_container(command: str, results: Path, deadline: float) -> None:
    """Boot systemd, run the command as a service, which sees the directory as /results, and end.

    Args:
        deadline: seconds for all of it.

    Raises:
        subprocess.TimeoutExpired: it did not come to its end.
    """
    unit = UNIT.format(root=ROOT, command=command, deadline=deadline - 10)
    with tempfile.TemporaryDirectory(prefix="container-") as place:
        prelude = OVERLAY.format(place=place)
        with _started(prelude, results, unit=unit, first="lab.service") as process:
            process.wait(deadline)


class Booted:
    """A container that runs, and whose programs are run from outside: they outlive what changes
    in it, such as Python."""

    def __init__(self, pid: int) -> None:
        """Know its first process, systemd."""
        self.pid = pid

    def run(
        self, *words: str, deadline: float = 60, check: bool = True, outside: bool = False
    ) -> subprocess.CompletedProcess[str]:
        """Run a program in it.

        Args:
            deadline: seconds.
            outside: with this machine's network, as apt needs it.

        Raises:
            AssertionError: it failed, and that is checked.
            subprocess.TimeoutExpired: it did not come to its end.
        """
        spaces = ["mount", "uts", "ipc", "pid", *([] if outside else ["net"])]
        done = subprocess.run(
            [
                *("nsenter", "--target", str(self.pid), *(f"--{space}" for space in spaces)),
                *("env", "-i", "HOME=/root", "PATH=/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL=C"),
                *("DEBIAN_FRONTEND=noninteractive", *words),
            ],
            check=False,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            timeout=deadline,
        )
        assert not check or done.returncode == 0, f"{words}: {done.stdout[-4000:]}"
        return done


@contextlib.contextmanager
def booted(root: Path, results: Path, links: str, deadline: float = 60) -> Iterator[Booted]:
    """Boot systemd in a root of the test's own; at the end its power goes.

    Args:
        results: what is /results there.
        links: a shell script that makes its links, before systemd starts.
        deadline: seconds for the boot, and for the end.

    Raises:
        AssertionError: it does not come up.
        subprocess.TimeoutExpired: its power does not go.
    """
    prelude = OWN.format(root=root, links=links)
    with _started(prelude, results, first="multi-user.target") as process:
        try:
            machine = Booted(_first_child(process.pid, deadline))
            end = time.monotonic() + deadline
            while machine.run("systemctl", "is-system-running", check=False).stdout.strip() not in (
                "running",
                "degraded",
            ):
                assert time.monotonic() < end, (results / "console").read_text()
                time.sleep(0.2)
            yield machine
            machine.run("systemctl", "poweroff", "--no-block", check=False)
            process.wait(deadline)
        finally:
            process.kill()


def _first_child(pid: int, deadline: float) -> int:
    """The first process of what unshare makes, once it is systemd."""
    end = time.monotonic() + deadline
    while time.monotonic() < end:
        for child in Path(f"/proc/{pid}/task/{pid}/children").read_text().split():
            if "systemd" in Path(f"/proc/{child}/comm").read_text():
                return int(child)
        time.sleep(0.05)
    raise AssertionError("systemd did not start")


@contextlib.contextmanager
def _started(
    prelude: str, results: Path, *, first: str, unit: str = ""
) -> Iterator[subprocess.Popen[bytes]]:
    """A container whose systemd starts this unit; its control group goes with it."""
    group = cgroup2() / f"lab-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    init = results / "init"
    words = {"prelude": prelude, "results": results, "devices": DEVICES}
    init.write_text(INIT.format(**words, unit=unit, first=first))
    with (results / "console").open("wb") as console:
        process = subprocess.Popen(
            [
                *("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group)),
                *("unshare", "--cgroup", "--pid", "--mount", "--net", "--ipc", "--uts"),
                *("--fork", "--kill-child", "sh", str(init)),
            ],
            stdin=subprocess.DEVNULL,
            stdout=console,
            stderr=console,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        _remove(group)


def _remove(group: Path) -> None:
    """Once all processes in it have ended, as they do with the first one of their namespace."""
    end = time.monotonic() + GONE_WITHIN
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < end:
        time.sleep(0.1)
    for path in sorted(group.rglob("*/"), reverse=True):
        path.rmdir()
    group.rmdir()
