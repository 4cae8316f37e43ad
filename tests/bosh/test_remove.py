"""The remover: it acts only where BOSH has taken the job away, and then leaves nothing behind."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest

from tests.bosh.vm import Vm

STATE = """\
src 10.0.1.7 dst 10.0.1.9
	proto esp spi 0xc1 reqid 1 mode transport
src 10.0.1.9 dst 10.0.1.7
	proto esp spi 0xc2 reqid 1 mode transport
"""


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    """A VM on which the job has started, with a spec.json of before."""
    vm = Vm(tmp_path)
    vm.write("var/vcap/bosh/spec.json", "{}\n")
    assert vm.run("pre-start").returncode == 0
    vm.write("var/lib/ipsec-agent/guard.nft", "# saved\n")
    vm.write("run/ipsec-agent/agent.pid", "1\n")
    os.utime(vm.spec, (1, 1))
    vm.calls()
    return vm


def remove(vm: Vm) -> subprocess.CompletedProcess[str]:
    """Run the copy that pre-start has made."""
    return subprocess.run(
        ["/bin/sh", vm.root / "var/lib/ipsec-agent/remove"],
        check=False,
        capture_output=True,
        text=True,
        timeout=60,
        env={},
    )


def unharmed(vm: Vm) -> bool:
    """Whether nothing was called and nothing is gone."""
    kept = ("etc/ipsec-agent/ipsec.yml", "var/lib/ipsec-agent/guard.nft")
    return vm.calls() == [] and all((vm.root / name).exists() for name in kept)


def test_the_job_is_there(vm: Vm) -> None:
    """An update rewrites spec.json and the link."""
    vm.apply("dns", "web")
    assert (remove(vm).returncode, unharmed(vm)) == (0, True)


def test_an_update_in_between(vm: Vm) -> None:
    """The link is absent for a moment; spec.json is of before, or names the job."""
    vm.remove_job()
    os.utime(vm.spec, (1, 1))
    assert (remove(vm).returncode, unharmed(vm)) == (0, True)
    vm.apply("dns", "ipsec")
    assert (remove(vm).returncode, unharmed(vm)) == (0, True)


@pytest.mark.parametrize("text", ["", '{"job":{"templates":[{"name":"d', "\n"])
def test_a_spec_that_is_not_whole(vm: Vm, text: str) -> None:
    """It says nothing."""
    vm.remove_job()
    vm.spec.write_text(text)
    os.utime(vm.spec, (4e9, 4e9))
    assert (remove(vm).returncode, unharmed(vm)) == (0, True)


def test_a_link_that_leads_nowhere(vm: Vm) -> None:
    """At a boot the data disk is not mounted yet, and the job's link dangles."""
    vm.remove_job()
    (vm.root / "var/vcap/jobs/ipsec").symlink_to(vm.root / "var/vcap/data/jobs/ipsec/1")
    assert (remove(vm).returncode, unharmed(vm)) == (0, True)


def left(vm: Vm) -> set[str]:
    """What is there still that is ours."""
    return {
        str(path.relative_to(vm.root))
        for place in ("etc", "var/lib", "usr/local", "run")
        for path in (vm.root / place).rglob("*")
        if "ipsec" in path.name
    }


def test_removed(vm: Vm) -> None:
    """charon ends cleanly, then the guard goes, then every file; what is cut is told."""
    vm.remove_job()
    vm.unit("ipsec-agent-charon", "active")
    vm.answer("ip xfrm state", f"cat <<'END'\n{STATE}END\n")
    assert left(vm)

    done = remove(vm)

    assert done.returncode == 0, done.stderr
    assert "between these addresses: 10.0.1.7 10.0.1.9" in done.stdout
    assert "VMs that still enforce it drop all packets of this one" in done.stdout
    log = vm.root / "var/vcap/sys/log/ipsec/remove.log"
    assert log.read_text() == done.stdout
    calls = vm.calls()
    order = [
        "systemctl stop ipsec-agent-charon.service",
        "nft delete table inet ipsec_agent",
        "nft delete table netdev ipsec_agent",
    ]
    assert [call for call in calls if call in order] == order
    assert not [call for call in calls if "flush" in call]
    assert left(vm) == set()


def test_added_again_meanwhile(vm: Vm) -> None:
    """A pre-start of now has put everything there; monit starts what was stopped."""
    vm.remove_job()
    vm.answer("systemctl stop ipsec-agent.service", f"touch {vm.root}/var/vcap/jobs/ipsec\n")

    done = remove(vm)

    assert (done.returncode, "the job is back" in done.stdout) == (0, True)
    assert (vm.root / "etc/ipsec-agent/ipsec.yml").exists()
    assert not [call for call in vm.calls() if call.startswith(("nft delete", "systemctl disable"))]


def test_removed_after_optional(vm: Vm) -> None:
    """The documented way: nobody is cut off, and the log says so."""
    vm.write("etc/ipsec-agent/ipsec.yml", "ipsec:\n  optional: true\n")
    vm.remove_job()
    said = remove(vm).stdout
    assert "IPsec was optional" in said
    assert "drop" not in said


def test_a_charon_that_was_killed(vm: Vm) -> None:
    """It has left policies, which nobody would take away any more."""
    vm.remove_job()
    vm.answer("ip xfrm policy", "echo src 10.0.0.0/16 dst 10.0.1.7/32\n")
    assert "charon did not run" in remove(vm).stdout
    assert {"ip xfrm policy flush", "ip xfrm state flush"} <= set(vm.calls())


def test_cut_short(vm: Vm) -> None:
    """Where the VM goes down in between, the next boot's look does the rest."""
    vm.remove_job()
    saved = vm.root / "saved"
    shutil.copytree(vm.root / "var/lib/ipsec-agent", saved)
    vm.answer("systemctl disable --quiet ipsec-agent-guard.service", "kill -9 $PPID\n")

    assert remove(vm).returncode == -9

    assert {path.name for path in (vm.root / "var/lib/ipsec-agent").iterdir()} >= {
        *("remove", "installed"),
    }
    (vm.root / "answers/systemctl_disable___quiet_ipsec_agent_guard_service").unlink()
    assert remove(vm).returncode == 0
    assert left(vm) == set()
