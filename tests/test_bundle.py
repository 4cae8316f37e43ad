"""`ipsec-agent bundle`: what is in the archive, what never is, and what is told of other parts."""

import asyncio
import os
import stat
import tarfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent import __version__
from ipsec_agent.cli import main
from ipsec_agent.core.status import document
from ipsec_agent.host import evidence
from ipsec_agent.host.control import serve_control
from ipsec_agent.verbs import bundle
from tests.certificates import Issued, ec_key, key_pem, make_ca, make_leaf, rsa_key
from tests.core.test_status import snapshot
from tests.core.test_support import STATE, dump
from tests.key_material import found_in, numbers
from tests.manifests import manifest
from tests.vm import healthy_vm, with_sa

CA = make_ca(key=ec_key(1))
LEAVES = [
    pytest.param(make_leaf(CA, key=ec_key(2)), id="EC"),
    pytest.param(make_leaf(CA, key=rsa_key(3072, 200)), id="RSA"),
]
PROGRAMS = ("journalctl", "ip", "nft", "ss", "swanctl", "systemctl", "dpkg-query")


def programs(directory: Path, **scripts: str) -> None:
    """Put shell scripts in place of the programs that are asked; each else tells its arguments."""
    directory.mkdir()
    for name in PROGRAMS:
        path = directory / name
        script = scripts.get(name.replace("-", "_"), f'echo {name} "$@"')
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in which all programs are made up."""
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    monkeypatch.setattr(bundle, "AGENT_LOG", tmp_path / "agent.log")
    monkeypatch.setattr(bundle, "BOSH_LOGS", tmp_path / "bosh")
    monkeypatch.setattr(bundle, "PROGRAM", ("echo",))
    return tmp_path


def config(place: Path, leaf: Issued) -> Path:
    """A config whose files are there."""
    path = place / "ipsec.yml"
    agent = {"run_dir": str(place), "charon": {"log": str(place / "charon.log")}}
    path.write_text(manifest(["10.0.1.0/24"], leaf=leaf, cas=[CA], agent=agent))
    return path


def read(path: Path) -> dict[str, str]:
    """Each file of an archive, by its name below the folder."""
    with tarfile.open(path) as archive:
        members = archive.getmembers()
        assert len({member.name.partition("/")[0] for member in members}) == 1
        return {
            member.name.partition("/")[2]: file.read().decode()
            for member in members
            if (file := archive.extractfile(member)) is not None
        }


def made(place: Path, config_path: Path) -> Mapping[str, str]:
    """What is in the archive of a VM."""
    file = place / "made.tar.gz"
    assert main(["bundle", str(file), "--config", str(config_path)]) == 0
    return read(file)


@pytest.mark.parametrize("leaf", LEAVES)
def test_no_key_in_it(place: Path, leaf: Issued) -> None:
    """Not from the config, from logs with everything in them, nor from SAs that ip shows whole."""
    secret = numbers(leaf.key)[0]
    raw = secret.to_bytes((secret.bit_length() + 7) // 8, "big")
    everything = f"{dump(raw)}{key_pem(leaf.key)}{raw.hex()}\n"
    (place / "charon.log").write_text(f"started\n{everything}")
    (place / "agent.log").write_text(f"ready\n{everything}")
    (place / "state").write_text(STATE)
    (place / "log").write_text(everything)
    programs(place / "bin", ip=f"cat {place}/state", journalctl=f"cat {place}/log")
    shown = made(place, config(place, leaf))

    assert found_in(everything, leaf.key)
    for name, text in shown.items():
        assert not found_in(text, leaf.key), name
        assert "4f1b9c0d" not in text, name
    assert shown["log/charon.log"].startswith("started\n")
    assert shown["log/agent.log"].startswith("ready\n")
    assert "rfc4106(gcm(aes)) (removed) 128" in shown["kernel/states.txt"]


def test_without_an_agent(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """What can be had is there; a line says of each other part why it is not."""
    programs(place / "bin", nft="echo no table >&2; exit 1")
    shown = made(place, config(place, make_leaf(CA)))

    assert shown["kernel/states.txt"] == "ip -s xfrm state list nokeys\n"
    assert "is valid" in shown["check.txt"]
    assert '"ipsec_subnets"' in shown["config.json"]
    assert "ipsec_subnets:" in shown["config.outline.txt"]
    assert shown["guard.json"] == f"guard status --json --config {place}/ipsec.yml\n"
    assert "ipsec-agent " in shown["versions.txt"]
    told = shown["parts.txt"].splitlines()
    assert (
        f"status.json: missing: no agent is running: nothing answers on {place}/control.sock"
        in told
    )
    assert "kernel/guard.txt: missing: ended with 1" in told
    assert shown["kernel/guard.txt"] == "no table\n"
    assert f"log/charon.log: missing: {place}/charon.log: No such file or directory" in told
    assert "status.json" not in shown
    said = capsys.readouterr().out
    missing = sum(": missing: " in line for line in told)
    lacking = f"{missing} parts missing, see parts.txt in it"
    assert said == f"{place}/made.tar.gz: {len(shown)} files; {lacking}\n"


async def test_with_an_agent(place: Path) -> None:
    """Its status, as JSON and as text, and its metrics."""
    programs(place / "bin")

    async def status(_request: dict[str, Any]) -> dict[str, Any]:
        return {"status": document(snapshot(with_sa(healthy_vm())))}

    async def metrics(request: dict[str, Any]) -> dict[str, Any]:
        return {"metrics": f"peers {request['peers']}\n"}

    path = config(place, make_leaf(CA))
    async with serve_control(place / "control.sock", {"status": status, "metrics": metrics}, {}):
        shown = await asyncio.to_thread(made, place, path)

    assert '"state": "running"' in shown["status.json"]
    assert "running, healthy" in shown["status.txt"]
    assert "\nPEER " in shown["status.txt"]
    assert shown["status.txt"].endswith("\nno event yet\n")
    assert shown["metrics.txt"] == "peers True\n"


def test_a_broken_config(place: Path) -> None:
    """Its complaints and its outline are there, and the other parts with the usual places."""
    programs(place / "bin")
    path = config(place, make_leaf(CA))
    path.write_text(path.read_text().replace("10.0.1.0/24", "10.0.1.0/99"))
    shown = made(place, path)

    assert "'10.0.1.0/99' is not a subnet" in shown["check.txt"]
    assert "ipsec_subnets:" in shown["config.outline.txt"]
    assert "config.json" not in shown
    assert "kernel/links.txt" in shown


def test_what_hangs(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A program that does not end is killed with all that it began, and the other parts come."""
    monkeypatch.setattr(bundle, "DEADLINE", 1.0)
    programs(place / "bin", ss=f"echo so far; sleep 100 & echo $! > {place}/pid; wait")
    shown = made(place, config(place, make_leaf(CA)))

    assert "kernel/sockets.txt: missing: did not end within 1 s" in shown["parts.txt"]
    assert shown["kernel/sockets.txt"] == "so far\n"
    child = Path("/proc") / (place / "pid").read_text().strip() / "status"
    assert not child.exists() or "State:\tZ" in child.read_text()
    assert shown["kernel/rules.txt"] == "ip rule\n"


def test_all_of_it_ends(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Once the time for all is over, what is left is named, not tried."""
    monkeypatch.setattr(bundle, "IN_ALL", 0.0)
    programs(place / "bin")
    shown = made(place, config(place, make_leaf(CA)))

    assert list(shown) == ["parts.txt"]
    assert "kernel/links.txt: missing: no time was left" in shown["parts.txt"]


def test_only_for_its_owner(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Mode 0600, and nothing that is there is overwritten."""
    programs(place / "bin")
    path = config(place, make_leaf(CA))
    made(place, path)
    file = place / "made.tar.gz"

    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    before = file.read_bytes()
    assert main(["bundle", str(file), "--config", str(path)]) == 1
    assert f"{file} is there" in capsys.readouterr().err
    assert file.read_bytes() == before


def test_the_guard(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The verb's document is there, whatever its exit code says; a complaint of it is a fault."""
    shown = place / "shown"
    monkeypatch.setattr(bundle, "PROGRAM", ("sh", "-c", f"cat {shown}; exit 3"))
    asked = bundle._guard_status(place / "ipsec.yml")
    shown.write_text('{"state": "missing"}\n')
    assert asked(60.0) == evidence.Outcome('{"state": "missing"}\n')
    shown.write_text("needs root\n")
    assert asked(60.0) == evidence.Outcome("needs root\n", "ended with 3")


def test_modules_of_this_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What root calls in a directory that others may write has no module of theirs."""
    (tmp_path / "ipsec_agent").mkdir()
    (tmp_path / "ipsec_agent/__main__.py").write_text("print('theirs')")
    (tmp_path / "argparse.py").write_text("print('theirs')")
    monkeypatch.chdir(tmp_path)

    said = evidence.said((*bundle.PROGRAM, "--version"), 60.0)

    assert said == evidence.Outcome(f"ipsec-agent {__version__}\n")


def test_a_log_that_may_not_be_seen(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is a line of the archive, which is made all the same."""
    programs(place / "bin")
    monkeypatch.setattr(bundle, "AGENT_LOG", place / ("n" * 300))
    shown = made(place, config(place, make_leaf(CA)))
    assert "log/agent.log" not in shown
    (line,) = (one for one in shown["parts.txt"].splitlines() if one.startswith("log/agent.log"))
    assert line.endswith("File name too long")


def test_logs_of_the_bosh_job(place: Path) -> None:
    """Each is there, and charon's once."""
    programs(place / "bin")
    logs = place / "bosh"
    logs.mkdir()
    for name in ("agent.log", "drain.log", "pre-start.stderr.log"):
        (logs / name).write_text(f"of {name}\n")
    shown = made(place, config(place, make_leaf(CA)))
    assert shown["log/agent.log"] == "of agent.log\n"
    assert shown["log/drain.log"] == "of drain.log\n"
    assert shown["log/pre-start.stderr.log"] == "of pre-start.stderr.log\n"
    assert "ipsec-agent-drain" in shown["log/ipsec-agent-drain.txt"]


def test_log_of_a_charon_without_a_journal(place: Path) -> None:
    """charon writes a file where nobody hears it; the archive has its end, beside the journal's."""
    programs(place / "bin")
    agent = {"run_dir": str(place)}
    path = place / "ipsec.yml"
    path.write_text(manifest(["10.0.1.0/24"], leaf=make_leaf(CA), cas=[CA], agent=agent))
    assert "log/charon.log" not in made(place, path)
    (place / "made.tar.gz").unlink()
    (place / "charon.log").write_text("00[DMN] started\n")
    shown = made(place, path)
    assert shown["log/charon.log"] == "00[DMN] started\n"
    assert "charon-systemd" in shown["log/charon-syslog.txt"]


def test_versions_in_the_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It has no metadata of its libraries, and the version in a directory's name."""
    monkeypatch.setattr(bundle, "HOME", tmp_path)
    for name in ("pyyaml-6.0.4", "prometheus_client-0.26.0"):
        (tmp_path / f"{name}.dist-info/licenses").mkdir(parents=True)
    assert bundle._version("PyYAML") == "6.0.4"
    assert bundle._version("prometheus-client") == "0.26.0"


def test_the_end_of_a_long_output(place: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of what is too long the end is kept, and it is said."""
    monkeypatch.setattr(evidence, "MOST", 100)
    programs(place / "bin")
    log = place / "long"
    log.write_text("x" * 200 + "the end\n")

    shown = evidence.tail(log)

    assert shown.startswith("(the first 108 bytes are left out)\n")
    assert shown.endswith("the end\n")
