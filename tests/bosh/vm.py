"""A VM for the job's scripts: a directory for its root, and programs that note their calls."""

import os
import re
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

from tests.bosh.job import JOB, SPEC

PLACES = re.compile(
    r"(?<![\w/.}$*])/(var/vcap|var/lib|run/ipsec-agent|etc/|proc/|usr/local/(share|bin)/ipsec-agent)"
)
"""Below the directory in place of the root."""

RECORDER = """\
#!/bin/sh
# Writes down a call; answers and fails as files beside it say.
name=${{0##*/}}
printf '%s\\n' "$name $*" >>{root}/calls
key=$(printf '%s' "$name $*" | tr -c 'a-zA-Z0-9\\n' _)
[ ! -e "{root}/answers/$key" ] || . "{root}/answers/$key"
"""
PROGRAMS = ("systemctl", "nft", "ip")


class Vm:
    """The root directory, and what is in it.

    Args:
        root: an empty directory.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.boot = root / "proc/sys/kernel/random/boot_id"
        self.note = root / "run/ipsec-agent/after-stop"
        self.spec = root / "var/vcap/bosh/spec.json"
        self._job = root / "var/vcap/jobs/ipsec"
        self._package = root / "var/vcap/packages/ipsec-agent"
        for name in ("answers", "fake", "usr/local/bin", "usr/local/share", "var/vcap/bosh"):
            (root / name).mkdir(parents=True)
        for name in PROGRAMS:
            self._program(root / "fake" / name)
        self._program(self._package / "bin/ipsec-agent")
        self.write("proc/sys/kernel/random/boot_id", "boot-1\n")
        self._packages()
        self.deploy()

    def _program(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(RECORDER.format(root=self.root))
        path.chmod(0o755)

    def _packages(self) -> None:
        units = "var/vcap/packages/ipsec-agent/lib/systemd/system"
        for name in ("ipsec-agent.service", "ipsec-agent-guard.service", "ipsec-agent.target"):
            self.write(f"{units}/{name}", f"# {name}\n")
        self.write(f"{units}/nftables.service.d/ipsec-agent.conf", "# drop-in\n")
        self.write("var/vcap/packages/ipsec-agent/share/ipsec-agent/closed.nft", "# closed\n")
        self.write("var/vcap/packages/strongswan/libexec/ipsec/charon", "")

    def deploy(self) -> None:
        """Write the job's files, as rendered, for this root."""
        for source, target in SPEC["templates"].items():
            if not source.endswith(".erb"):
                self.write(f"var/vcap/jobs/ipsec/{target}", self.moved(source))
        self.write(
            "var/vcap/jobs/ipsec/config/settings.sh",
            "prestart_timeout=5\nstop_timeout=1\nguard=enforce\n",
        )
        self.config("ipsec: {}\n")

    def config(self, text: str) -> None:
        """Render another config, with the mode that BOSH gives it."""
        self.write("var/vcap/jobs/ipsec/config/ipsec.yml", text)
        (self._job / "config/ipsec.yml").chmod(0o640)

    def moved(self, template: str) -> str:
        """A script whose places are below the root, and whose programs are the recorders."""
        text = PLACES.sub(rf"{self.root}/\1", (JOB / "templates" / template).read_text())
        return text.replace("\nPATH=", f"\nPATH={self.root}/fake:")

    def write(self, name: str, text: str) -> None:
        """Write a file below the root."""
        path = self.root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)

    def answer(self, call: str, script: str) -> None:
        """Have a program, called with these words, run some lines of sh."""
        key = re.sub(r"[^a-zA-Z0-9]", "_", call)
        self.write(f"answers/{key}", script)

    def unit(self, name: str, state: str) -> None:
        """Have systemctl say that a unit is in this state, until it is stopped."""
        shown = f"systemctl show --property=ActiveState --value {name}.service"
        key = re.sub(r"[^a-zA-Z0-9]", "_", shown)
        self.answer(shown, f"echo {state}\n")
        self.answer(
            f"systemctl stop {name}.service", f"echo 'echo inactive' >{self.root}/answers/{key}\n"
        )

    def run(
        self, script: str, *words: str, env: Mapping[str, str] | None = None
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of the job under sh, with the environment that BOSH gives it: hardly any."""
        return subprocess.run(
            ["/bin/sh", self._job / "bin" / script, *words],
            check=False,
            capture_output=True,
            text=True,
            timeout=60,
            env={"PATH": "/usr/bin:/bin", **(env or {})},
        )

    def leave(self, word: str, *, boot: str = "boot-1", age: float = 0) -> None:
        """Leave a note as drain does."""
        self.write("run/ipsec-agent/after-stop", f"{word} {boot} {int(time.time() - age)}\n")

    def calls(self) -> Sequence[str]:
        """What was called since the last look, without questions."""
        path = self.root / "calls"
        lines = path.read_text().splitlines() if path.exists() else []
        path.unlink(missing_ok=True)
        return [line for line in lines if not line.startswith("systemctl show ")]

    def remove_job(self) -> None:
        """Take the job away, as BOSH does: its link and its packages, then spec.json."""
        self._job.rename(self.root / "gone")
        self._package.rename(self.root / "gone-too")
        self.apply("dns", "web")

    def apply(self, *jobs: str) -> None:
        """Write spec.json, newer than all that is there."""
        named = ",".join(f'{{"name":"{job}"}}' for job in jobs)
        self.write("var/vcap/bosh/spec.json", f'{{"job":{{"templates":[{named}]}}}}\n')
        later = time.time() + 5
        os.utime(self.spec, (later, later))
