"""The job's hooks and its control script, with a systemctl that only writes down its calls.

The border is ours: the scripts. tests/boot has the real systemd.
"""

import os
import stat
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.bosh.vm import Vm

AGENT, DRAIN, CHARON = (f"ipsec-agent{one}.service" for one in ("", "-drain", "-charon"))
START_DRAIN = f"systemctl start --no-block {DRAIN}"
STOP_AGENT = f"systemctl stop {AGENT}"
KEEP = {f"BOSH_{one}_NEXT_STATE": "keep" for one in ("VM", "INSTANCE", "DEPLOYMENT")}


@pytest.fixture
def vm(tmp_path: Path) -> Vm:
    """A VM to which the job was deployed."""
    return Vm(tmp_path)


# --- the note ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("argument", "word"),
    [("job_changed", "changed"), ("job_shutdown", "shutdown"), ("job_new", "changed")],
)
def test_drain(vm: Vm, argument: str, word: str) -> None:
    """It prints one integer and nothing else, and leaves a note of this boot; again the same."""
    for _ in range(2):
        done = vm.run("drain", argument, "hash_changed")
        assert (done.returncode, done.stdout, done.stderr) == (0, "0\n", "")
    assert vm.note.read_text().split()[:2] == [word, "boot-1"]
    assert vm.calls() == []


def test_drain_prints_even_where_it_can_leave_no_note(vm: Vm) -> None:
    """BOSH takes no text for a number, and would stop there."""
    vm.write("run/ipsec-agent", "a file where the directory should be\n")

    done = vm.run("drain", "job_shutdown")

    assert done.stdout == "0\n"
    assert "no note for post-stop" in done.stderr


@pytest.mark.parametrize("going", ["VM", "INSTANCE", "DEPLOYMENT"])
def test_pre_stop_knows_what_goes(vm: Vm, going: str) -> None:
    """Where something is deleted, it says shutdown."""
    done = vm.run("pre-stop", env={**KEEP, f"BOSH_{going}_NEXT_STATE": "delete"})
    assert done.returncode == 0
    assert vm.note.read_text().startswith("shutdown boot-1 ")


def test_pre_stop_of_what_stays(vm: Vm) -> None:
    """The note of an earlier stop is gone; drain leaves another."""
    vm.leave("changed")
    assert vm.run("pre-stop", env=KEEP).returncode == 0
    assert not vm.note.exists()


NOTES = {
    "of now": ({"age": 0}, True),
    "of ten minutes ago": ({"age": 595}, True),
    "too old": ({"age": 605}, False),
    "of tomorrow": ({"age": -86400}, False),
    "of another boot": ({"boot": "boot-0"}, False),
}


@pytest.mark.parametrize(("how", "counts"), NOTES.values(), ids=NOTES)
def test_which_note_counts(vm: Vm, how: dict[str, object], counts: bool) -> None:
    """After a change IPsec stays up; a note that does not count is no note, and IPsec ends."""
    vm.unit("ipsec-agent-charon", "active")
    vm.leave("changed", **how)  # type: ignore[arg-type]

    done = vm.run("post-stop")

    assert done.returncode == 0
    assert (vm.calls() == []) == counts
    assert not vm.note.exists()


@pytest.mark.parametrize("text", ["", "\n", "changed\n", "changed boot-1 soon\n", "x boot-1 1\n"])
def test_a_damaged_note(vm: Vm, text: str) -> None:
    """It is no note."""
    vm.write("run/ipsec-agent/after-stop", text)
    assert vm.run("ctl", "stop").returncode == 0
    assert vm.calls() == [START_DRAIN, STOP_AGENT]


# --- monit's start and stop ----------------------------------------------------------------------


@pytest.mark.parametrize("word", ["shutdown", None])
def test_monit_stop(vm: Vm, word: str | None) -> None:
    """The loop that waits for the other jobs runs in a unit of its own; the agent ends at once."""
    if word:
        vm.leave(word)
    assert vm.run("ctl", "stop").returncode == 0
    assert vm.calls() == [START_DRAIN, STOP_AGENT]


def test_monit_stop_before_a_change(vm: Vm) -> None:
    """charon stays, whoever has exited."""
    vm.leave("changed")
    assert vm.run("ctl", "stop").returncode == 0
    assert vm.calls() == [STOP_AGENT]


def test_monit_stop_without_a_place_for_logs(vm: Vm) -> None:
    """What cannot be written down is done all the same."""
    vm.write("var/vcap/sys/log", "a file where the directory should be\n")

    done = vm.run("ctl", "stop")

    assert done.returncode == 0
    assert "cannot make " in done.stderr
    assert vm.calls() == [START_DRAIN, STOP_AGENT]


def test_monit_stop_without_a_drain(vm: Vm) -> None:
    """The agent is stopped all the same, and IPsec is not."""
    vm.answer(START_DRAIN, "exit 5\n")
    done = vm.run("ctl", "stop")
    assert done.returncode == 0
    assert "IPsec stays up until post-stop" in done.stderr
    assert vm.calls() == [START_DRAIN, STOP_AGENT]


@pytest.mark.parametrize("start", [("ctl", "start"), ("pre-start",)])
def test_a_start_after_an_update_that_was_broken_off(vm: Vm, start: tuple[str, ...]) -> None:
    """The note of its drain is gone: a later stop, without hooks, ends IPsec."""
    assert vm.run("drain", "job_changed").returncode == 0
    assert vm.run(*start).returncode == 0
    vm.calls()

    assert vm.run("ctl", "stop").returncode == 0

    assert vm.calls() == [START_DRAIN, STOP_AGENT]


def test_monit_start(vm: Vm) -> None:
    """It makes what a boot has not, and returns what systemd says of the start."""
    vm.answer(f"systemctl start {AGENT}", "exit 3\n")
    assert vm.run("ctl", "start").returncode == 3
    assert (vm.root / "var/vcap/sys/log/ipsec").is_dir()
    assert vm.calls()[-1] == f"systemctl start {AGENT}"
    assert vm.run("ctl", "restart").returncode == 2


@pytest.mark.parametrize("script", [("ctl", "start"), ("ctl", "stop"), ("pre-start",)])
def test_logs_are_of_root_alone(vm: Vm, script: tuple[str, ...]) -> None:
    """BOSH lets group vcap write their directory: a link or a FIFO of its is no log."""
    logs, other = vm.root / "var/vcap/sys/log/ipsec", vm.root / "other"
    logs.mkdir(parents=True)
    logs.chmod(0o770)
    (logs / "agent.log").symlink_to(other)
    os.mkfifo(logs / "charon.log")
    (logs / "drain.log").write_text("earlier\n")

    assert vm.run(*script).returncode == 0

    assert stat.S_IMODE(logs.stat().st_mode) == 0o750
    assert not (logs / "agent.log").is_symlink()
    assert not (logs / "charon.log").exists()
    assert (logs / "drain.log").read_text() == "earlier\n"
    assert not other.exists()


# --- post-stop -----------------------------------------------------------------------------------


def test_post_stop_after_the_drain(vm: Vm) -> None:
    """Where monit's stop has ended everything there is nothing left to do."""
    vm.leave("shutdown")
    assert vm.run("post-stop").returncode == 0
    assert vm.calls() == [STOP_AGENT]


def test_post_stop_waits(vm: Vm) -> None:
    """For the drain that monit's stop began; charon is not touched before it ends."""
    vm.leave("shutdown")
    vm.unit("ipsec-agent-charon", "active")
    shown = f"systemctl show --property=ActiveState --value {DRAIN}"
    count, charon = vm.root / "count", "ipsec_agent_charon_service"
    vm.answer(
        shown,
        f"echo x >>{count}; [ $(wc -l <{count}) -lt 3 ] && echo active && exit\n"
        f"echo 'echo inactive' >{vm.root}/answers/systemctl_show___property_ActiveState___value_"
        f"{charon}\necho inactive\n",
    )

    assert vm.run("post-stop").returncode == 0

    assert count.read_text().count("x") == 3
    assert vm.calls() == [STOP_AGENT]


def test_post_stop_without_a_drain(vm: Vm) -> None:
    """Where monit called nobody, it starts the drain itself, and ends charon in the end."""
    vm.unit("ipsec-agent-charon", "active")
    assert vm.run("post-stop").returncode == 0
    assert vm.calls() == [STOP_AGENT, START_DRAIN, f"systemctl stop {CHARON}"]


def test_post_stop_has_an_end(vm: Vm) -> None:
    """A drain that does not end is stopped after stop_timeout and a minute."""
    vm.unit("ipsec-agent-charon", "active")
    vm.unit("ipsec-agent-drain", "active")
    settings = "prestart_timeout=5\nstop_timeout=-57\nguard=enforce\n"
    vm.write("var/vcap/jobs/ipsec/config/settings.sh", settings)
    path = vm.root / "fake/sleep"
    path.write_text("#!/bin/sh\n")
    path.chmod(0o755)

    done = vm.run("post-stop")

    assert done.returncode == 0
    assert "the drain does not end, and is stopped" in done.stderr
    assert vm.calls() == [STOP_AGENT, f"systemctl stop {DRAIN}", f"systemctl stop {CHARON}"]


# --- pre-start -----------------------------------------------------------------------------------


def test_pre_start(vm: Vm) -> None:
    """The config is judged first, then the guard is up, and then IPsec starts; again the same."""
    vm.answer("nft list table inet ipsec_agent", "exit 1\n")
    vm.leave("changed")

    calls: Sequence[str] = ()
    for _ in range(2):
        done = vm.run("pre-start")
        assert done.returncode == 0, done.stderr
        calls = vm.calls()
        order = [
            f"ipsec-agent check {vm.root}/var/vcap/jobs/ipsec/config/ipsec.yml",
            "systemctl daemon-reload",
            "systemctl start ipsec-agent-guard.service",
            "ipsec-agent guard up",
            "ipsec-agent check --machine",
            f"systemctl restart {AGENT}",
        ]
        assert [call for call in calls if call in order] == order
    enabled = next(call for call in calls if call.startswith("systemctl enable"))
    assert "ipsec-agent-guard.service" in enabled
    assert AGENT not in enabled.split(), "what needs /var/vcap must not start at a boot"
    assert not vm.note.exists()


def test_what_a_boot_needs_is_on_the_root_disk(vm: Vm) -> None:
    """Units, the closed table and the remover are outside /var/vcap; secrets are root's alone."""
    assert vm.run("pre-start").returncode == 0

    units = vm.root / "etc/systemd/system"
    for name in (
        *("ipsec-agent.service", "ipsec-agent-guard.service", "ipsec-agent-remover.path"),
        *("nftables.service.d/ipsec-agent.conf", "ipsec-agent.service.d/bosh.conf"),
    ):
        assert stat.S_IMODE((units / name).stat().st_mode) == 0o644, name
    assert (vm.root / "usr/local/share/ipsec-agent/closed.nft").read_text() == "# closed\n"
    assert (vm.root / "var/lib/ipsec-agent/remove").exists()
    for name in ("etc/ipsec-agent/ipsec.yml", "var/vcap/jobs/ipsec/config/ipsec.yml"):
        assert stat.S_IMODE((vm.root / name).stat().st_mode) == 0o600, name
    for name in ("etc/ipsec-agent", "var/lib/ipsec-agent"):
        assert stat.S_IMODE((vm.root / name).stat().st_mode) == 0o700, name
    for left in vm.root.rglob("*.new"):
        pytest.fail(f"{left} was left")


def test_a_guard_that_is_up_stays(vm: Vm) -> None:
    """The agent replaces it itself, and knows the links to containers."""
    assert vm.run("pre-start").returncode == 0
    assert "ipsec-agent guard up" not in vm.calls()


def test_a_refused_config_changes_nothing(vm: Vm) -> None:
    """Neither units nor config, and the agent of the last deployment is not started."""
    assert vm.run("pre-start").returncode == 0
    vm.calls()
    vm.config("ipsec: {wrong: yes}\n")
    rendered = f"{vm.root}/var/vcap/jobs/ipsec/config/ipsec.yml"
    vm.answer(f"ipsec-agent check {rendered}", "echo the complaint >&2; exit 1\n")

    done = vm.run("pre-start")

    assert done.returncode == 1
    assert "the complaint" in done.stderr
    assert "nothing was changed" in done.stderr
    assert vm.calls() == [f"ipsec-agent check {rendered}"]
    assert (vm.root / "etc/ipsec-agent/ipsec.yml").read_text() == "ipsec: {}\n"


def test_no_nft(vm: Vm) -> None:
    """One sentence, and nothing is touched."""
    script = vm.root / "var/vcap/jobs/ipsec/bin/common.sh"
    fake = vm.root / "fake"
    (fake / "nft").unlink()
    for program in ("date", "mkdir", "cat", "rm"):
        (fake / program).symlink_to(f"/usr/bin/{program}")
    text = script.read_text().replace(f"PATH={fake}:", f"PATH={fake}\n# ")
    script.write_text(text)

    done = vm.run("pre-start")

    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert "this stemcell has no nft, which loads the guard; use a stemcell that has it" in line
    assert vm.calls() == []


def test_a_start_that_fails(vm: Vm) -> None:
    """What the agent complained of is shown, without its events and what it said before."""
    log = vm.root / "var/vcap/sys/log/ipsec/agent.log"
    vm.write("var/vcap/sys/log/ipsec/agent.log", "ipsec-agent: of yesterday\n")
    vm.answer(
        f"systemctl restart {AGENT}",
        f'echo \'{{"event": "x"}}\' >>{log}; echo "ipsec-agent: of now" >>{log}; exit 1\n',
    )

    done = vm.run("pre-start")

    assert done.returncode == 1
    assert "ipsec-agent: of now\n" in done.stderr
    assert "of yesterday" not in done.stderr
    assert "event" not in done.stderr


def test_a_start_that_hangs(vm: Vm) -> None:
    """pre-start has a limit of its own, since BOSH has none."""
    settings = "prestart_timeout=-29\nstop_timeout=1\nguard=enforce\n"
    vm.write("var/vcap/jobs/ipsec/config/settings.sh", settings)
    vm.answer(f"systemctl restart {AGENT}", "exec sleep 20\n")

    done = vm.run("pre-start")

    assert done.returncode == 1
    assert "IPsec did not start" in done.stderr


@pytest.mark.parametrize("same", [True, False])
def test_a_charon_of_another_package(vm: Vm, same: bool) -> None:
    """It is ended, so that the new one starts; the same one is left alone."""
    vm.answer("systemctl show --property=MainPID --value ipsec-agent-charon.service", "echo 77\n")
    now = vm.root / "var/vcap/packages/strongswan/libexec/ipsec/charon"
    exe = vm.root / "proc/77/exe"
    exe.parent.mkdir()
    exe.symlink_to(now if same else vm.root / "var/vcap/data/packages/strongswan/1/charon")

    assert vm.run("pre-start").returncode == 0

    calls = vm.calls()
    ended = f"systemctl stop {CHARON}" in calls
    assert ended != same
    if ended:
        assert calls.index(f"systemctl stop {CHARON}") < calls.index(f"systemctl restart {AGENT}")
