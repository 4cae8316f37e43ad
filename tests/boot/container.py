"""A machine with the real systemd and this machine's kernel: an overlay of this root.

Faster than a guest where no ESP is needed. What is done in it is in memory, and ends with it.
"""

import subprocess
import tempfile
import time
import uuid
from pathlib import Path

from tests.data_files import ROOT

SYSTEMD = Path("/lib/systemd/systemd")

DEVICES = "null zero full random urandom tty"

GONE_WITHIN = 20.0

INIT = """\
set -e
mount --make-rprivate /
mount -t tmpfs tmpfs {place}
mkdir {place}/upper {place}/work {place}/root
mount -t overlay -o lowerdir=/,upperdir={place}/upper,workdir={place}/work overlay {place}/root
root={place}/root
# dpkg renames and removes here all the time; the overlay of Linux 6.18 then shows stale files.
mkdir {place}/dpkg
cp -a /var/lib/dpkg/. {place}/dpkg
mount --bind {place}/dpkg $root/var/lib/dpkg
mkdir -p $root/results
mount --bind {results} $root/results
mount -t proc proc $root/proc
mount -t sysfs sysfs $root/sys
mount -t cgroup2 cgroup2 $root/sys/fs/cgroup
mount -t tmpfs tmpfs $root/run
mount -t tmpfs -o mode=755 tmpfs $root/dev
for name in {devices}; do touch $root/dev/$name; mount --bind /dev/$name $root/dev/$name; done
ln -s /proc/self/fd $root/dev/fd
rm -rf $root/etc/systemd/system/*.wants $root/usr/sbin/policy-rc.d
cat > $root/etc/systemd/system/lab.service <<END
{unit}
END
cd $root
pivot_root . .
umount --lazy .
exec env -i container=other /lib/systemd/systemd --unit=lab.service --show-status=no
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
    group = cgroup2() / f"lab-{uuid.uuid4().hex[:8]}"
    group.mkdir()
    unit = UNIT.format(root=ROOT, command=command, deadline=deadline - 10)
    with tempfile.TemporaryDirectory(prefix="container-") as place:
        init = results / "init"
        words = {"place": place, "results": results, "devices": DEVICES, "unit": unit}
        init.write_text(INIT.format(**words))
        with (results / "console").open("wb") as console:
            try:
                subprocess.run(
                    [
                        *("sh", "-c", 'echo $$ > "$0/cgroup.procs"; exec "$@"', str(group)),
                        *("unshare", "--cgroup", "--pid", "--mount", "--net", "--ipc", "--uts"),
                        *("--fork", "--kill-child", "sh", str(init)),
                    ],
                    check=False,
                    stdin=subprocess.DEVNULL,
                    stdout=console,
                    stderr=console,
                    timeout=deadline,
                )
            finally:
                _remove(group)


def _remove(group: Path) -> None:
    """Once all processes in it have ended, as they do with the first one of their namespace."""
    end = time.monotonic() + GONE_WITHIN
    while "populated 1" in (group / "cgroup.events").read_text() and time.monotonic() < end:
        time.sleep(0.1)
    for path in sorted(group.rglob("*/"), reverse=True):
        path.rmdir()
    group.rmdir()
