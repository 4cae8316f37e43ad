"""/var/vcap of a VM to which BOSH has put the job ipsec and two others, as an archive.

The job is rendered as a director does it; its packages are this project and Debian's strongSwan,
or those of the release, compiled.
"""

import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.boot.lives import PEERS, config
from tests.boot.place import DATA_DISK, RESULTS
from tests.boot.stage import FAREWELL
from tests.bosh.job import BOSH, given, render
from tests.certificates import ec_key, make_ca, make_leaf
from tests.charon.nodes import OTHER_CHARON
from tests.data_files import ROOT, installed

STOP_TIMEOUT = 300
"""Seconds that a drain waits for the other jobs: longer than all else in a life."""

JOBS = {
    "nfs": f"{sys.executable} -I -S {FAREWELL} {RESULTS}/farewell.json",
    "web": "sleep infinity",
}
"""What the other jobs run; the first one needs its network until its end."""

CTL = """\
#!/bin/sh
# Starts and stops the job, whose stop takes as long as the job does.
place=/var/vcap/sys/run/{name}
case $1 in
  start)
    mkdir -p "$place"
    {command} >/dev/null 2>&1 &
    echo $! >"$place/{name}.pid"
    ;;
  stop)
    pid=$(cat "$place/{name}.pid")
    kill "$pid"
    while kill -0 "$pid" 2>/dev/null; do sleep 0.1; done
    rm -f "$place/{name}.pid"
    ;;
esac
"""

WATCHED = """\
check process {name} with pidfile /var/vcap/sys/run/{name}/{name}.pid
  group vcap
  start program = "/var/vcap/jobs/{name}/bin/ctl start" with timeout 60 seconds
  stop program = "/var/vcap/jobs/{name}/bin/ctl stop" with timeout 60 seconds
"""

MONITRC = """\
set daemon 10
set logfile /var/vcap/monit/monit.log
set pidfile /var/vcap/monit/monit.pid
set idfile /var/vcap/monit/monit.id
set statefile /var/vcap/monit/monit.state
set httpd port 2822 and use address 127.0.0.1 allow vcap:lab-word
include /var/vcap/monit/job/*.monitrc
"""

AGENT = """\
#!/bin/sh
PYTHONPATH={root} exec {python} -sP -m ipsec_agent "$@"
"""


def deployment(
    results: Path, stop_timeout: float, compiled: Mapping[str, Path] | None = None
) -> None:
    """Write all that a life with BOSH needs: the archive, the job's configs, and those of the peer.

    Args:
        stop_timeout: seconds that a drain waits for the other jobs.
        compiled: where each of the job's packages is.
    """
    ca = make_ca()
    leaf = make_leaf(ca, key=ec_key())
    deployments = {}
    for name, optional in (("enforced", False), ("optional", True)):
        text = config(leaf, ca, {}, optional=optional, stop_timeout=stop_timeout)
        deployments[name] = {**given(text), "agent": {"interval": 3}}
        peers = config(leaf, ca, PEERS, optional=optional)
        (results / f"peer-{name}.yml").write_text(peers)
    shutil.copy(results / "peer-enforced.yml", results / "peer.yml")
    _data_disk(results, deployments, compiled)


def _data_disk(
    results: Path,
    deployments: Mapping[str, Mapping[str, Any]],
    compiled: Mapping[str, Path] | None,
) -> None:
    """Write the archive, and beside it the job's config as each of these properties give it."""
    vcap = results / "data" / "var" / "vcap"
    for name, properties in deployments.items():
        rendered = render(properties)
        assert rendered.errors == ()
        _write(results / f"{name}.yml", rendered.files["config/ipsec.yml"])
        _job(vcap, "ipsec", rendered.files)
    for name, command in JOBS.items():
        ctl, monit = (it.format(name=name, command=command) for it in (CTL, WATCHED))
        stops = "#!/bin/sh\nsleep 1\n"
        _job(vcap, name, {"bin/ctl": ctl, "bin/post-stop": stops, "monit": monit})
    if compiled is None:
        _packages(vcap / "packages")
    else:
        _compiled(vcap, compiled)
    _write(vcap / "monit/monitrc", MONITRC, 0o600)
    _write(vcap / "monit/monit.user", "vcap:lab-word\n", 0o600)
    (vcap / "bosh").mkdir()
    archive = results / DATA_DISK.name
    tar = ["tar", "--owner=0", "--group=0", "-cf", str(archive), "-C", str(results / "data"), "var"]
    subprocess.run(tar, check=True, timeout=60)
    shutil.rmtree(results / "data")


def _job(vcap: Path, name: str, files: dict[str, str]) -> None:
    """A job's files, as the BOSH agent lays them out; the link is what it sets and removes."""
    place = vcap / "data/jobs" / name
    for path, text in files.items():
        if path == "monit":
            _write(vcap / f"monit/job/{name}.monitrc", text, 0o600)
        else:
            _write(place / path, text, 0o755 if path.startswith("bin/") else 0o640)
    link = vcap / "jobs" / name
    link.parent.mkdir(exist_ok=True)
    link.unlink(missing_ok=True)
    link.symlink_to(f"/var/vcap/data/jobs/{name}")


def _packages(place: Path) -> None:
    for path, source in installed("ipsec-agent").items():
        (place / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(source, place / path)
    agent = AGENT.format(root=ROOT, python=sys.executable)
    _write(place / "ipsec-agent/bin/ipsec-agent", agent, 0o755)
    shim = (BOSH / "src/strongswan/ipsec").read_text()
    _write(place / "strongswan/sbin/ipsec", shim, 0o755)
    charon = place / "strongswan/libexec/ipsec/charon"
    charon.parent.mkdir(parents=True)
    charon.symlink_to(OTHER_CHARON)


def _compiled(vcap: Path, compiled: Mapping[str, Path]) -> None:
    for name, source in compiled.items():
        place = Path("data/packages", name, source.name)
        shutil.copytree(source, vcap / place, symlinks=True)
        link = vcap / "packages" / name
        link.parent.mkdir(exist_ok=True)
        link.symlink_to("/var/vcap" / place)


def _write(path: Path, text: str, mode: int = 0o644) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    path.chmod(mode)
