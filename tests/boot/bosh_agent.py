"""What the BOSH agent does with a VM's jobs, in the order that was measured of the real one.

Debian's monit does not serve a real one, which is why it is played here: the hooks with their
words, environment and priority, monit's commands, and spec.json.
"""

import functools
import itertools
import json
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.boot.driver import AGENT, run, shown, soon
from tests.boot.place import VCAP
from tests.monit.watched import FAILS, RUNNING

CHANGED, SHUTDOWN = "job_changed", "job_shutdown"
"""What drain is told: the instance goes on after this, or does not."""

KEEP = {f"BOSH_{one}_NEXT_STATE": "keep" for one in ("VM", "INSTANCE", "DEPLOYMENT")}
RECREATE = {**KEEP, "BOSH_VM_NEXT_STATE": "delete"}
NICE, DRAIN_NICE = 5, -15
PATH = {"PATH": "/usr/local/bin:/usr/local/sbin:/bin:/sbin:/usr/bin:/usr/sbin"}
PATIENCE = 200.0
SPEC = VCAP / "bosh/spec.json"
MONITRC = VCAP / "monit/monitrc"


def jobs() -> list[str]:
    """The jobs that are on this VM."""
    return sorted(path.name for path in (VCAP / "jobs").iterdir())


def hooks(
    name: str, *words: str, environment: Mapping[str, str] | None = None, nice: int = NICE
) -> None:
    """Run a hook of all jobs that have it, side by side.

    Raises:
        AssertionError: one failed, or a drain printed something else than one integer.
    """
    running = {
        job: subprocess.Popen(
            ["nice", "-n", str(nice), script, *words],
            env={**PATH, **(environment or {})},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for job in jobs()
        if (script := VCAP / "jobs" / job / "bin" / name).exists()
    }
    for job, process in running.items():
        out, error = process.communicate(timeout=PATIENCE)
        assert process.returncode == 0, f"{job}: {name}: {error}"
        assert name != "drain" or out == "0\n", f"{job}: drain printed {out!r}"


def monit(*words: str) -> str:
    """What monit says; the empty string where none answers."""
    return run("monit", "-c", str(MONITRC), "-B", *words, check=False).stdout


def summary() -> dict[str, str]:
    """What monit says of each job."""
    found = re.findall(r"^ (\S+)  +(.+?)  +Process", monit("summary"), re.MULTILINE)
    return dict(found)


def reload_monit() -> None:
    """As the agent does at each apply and start: a signal to all of monit's control group."""
    if shown("monit.service", "ActiveState") == "active":
        before = shown("monit.service", "MainPID")
        run("systemctl", "kill", "monit.service")
        soon(lambda: shown("monit.service", "MainPID") not in ("0", before), "monit is back")
    else:
        run("systemctl", "start", "monit.service")
    soon(lambda: set(summary()) == set(jobs()), "monit answers")


def apply() -> None:
    """The jobs that are there are those that shall be; spec.json says so, last."""
    templates = [{"name": job} for job in jobs()]
    SPEC.with_suffix(".new").write_text(json.dumps({"job": {"templates": templates}}) + "\n")
    SPEC.with_suffix(".new").replace(SPEC)


def start(*, with_hooks: bool = True) -> None:
    """Start all jobs, and wait until they run."""
    if with_hooks:
        hooks("pre-start")
    reload_monit()
    monit("-g", "vcap", "start")
    soon(lambda: all(it in (*RUNNING, *FAILS) for it in summary().values()), "all jobs run")


def tell_drains(comes: str, environment: Mapping[str, str]) -> None:
    """What comes before monit stops anything.

    The real one has monit watch nothing before the drains; Debian's would not stop a job then.
    """
    hooks("pre-stop", environment=environment)
    hooks("drain", comes, "hash_changed", nice=DRAIN_NICE)


def ended(job: str) -> bool:
    """Whether monit has stopped it."""
    if job == "ipsec":
        return shown(AGENT, "ActiveState") in ("inactive", "failed")
    return not (VCAP / "sys/run" / job / f"{job}.pid").exists()


def monit_stop(order: Sequence[str] = ()) -> None:
    """Have monit stop all jobs, one after the other; without an order, in its own."""
    for name in order:
        monit("stop", name)
        soon(functools.partial(ended, name), f"{name} ended")
    if not order:
        monit("-g", "vcap", "stop")
        soon(lambda: all(map(ended, jobs())), "all jobs ended")


def stop(comes: str, environment: Mapping[str, str] = KEEP, order: Sequence[str] = ()) -> None:
    """Stop all jobs, with all hooks."""
    tell_drains(comes, environment)
    monit_stop(order)
    hooks("post-stop")


def other_charon(program: str) -> None:
    """The job's package has another charon from now on."""
    link = VCAP / "packages/strongswan/libexec/ipsec/charon"
    link.unlink()
    link.symlink_to(program)


def take_away() -> None:
    """The job ipsec is not on this VM any more: its link and packages go."""
    (VCAP / "jobs/ipsec").unlink()
    (VCAP / "packages").rename(VCAP / "gone")
    (VCAP / "monit/job/ipsec.monitrc").rename(VCAP / "monit/ipsec.monitrc")
    apply()


def bring_back() -> None:
    """The job is on this VM again."""
    (VCAP / "gone").rename(VCAP / "packages")
    (VCAP / "jobs/ipsec").symlink_to(VCAP / "data/jobs/ipsec")
    (VCAP / "monit/ipsec.monitrc").rename(VCAP / "monit/job/ipsec.monitrc")
    apply()


def render(config: Path) -> None:
    """The job's config is another one; BOSH gives each rendered file this mode."""
    target = VCAP / "data/jobs/ipsec/config/ipsec.yml"
    shutil.copy(config, target)
    target.chmod(0o640)


def left_of_ipsec() -> list[str]:
    """What is on the root disk of the job."""
    patterns = {
        "/etc": ("ipsec-agent", "systemd/system/ipsec-agent*", "systemd/system/*.wants/ipsec*"),
        "/var/lib": ("ipsec-agent",),
        "/usr/local": ("bin/ipsec-agent", "share/ipsec-agent"),
        "/run": ("ipsec-agent",),
    }
    return sorted(
        itertools.chain.from_iterable(
            map(str, Path(root).glob(pattern)) for root, all_of in patterns.items()
            for pattern in all_of
        )
    )  # fmt: skip
