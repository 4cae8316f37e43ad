"""The private key is nowhere but in the config and in memory, and nobody gets at that memory."""

import os
import resource
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.certificates import Issued, ec_key, make_ca, make_leaf
from tests.charon.nodes import AGENT, DEADLINE, Node, until
from tests.charon.shared_manifest import configure
from tests.key_material import found_in

pytestmark = [pytest.mark.charon, pytest.mark.timeout(240)]

CA = make_ca("CA", key=ec_key(1))
FIRST, SECOND = make_leaf(CA, "one", key=ec_key(11)), make_leaf(CA, "two", key=ec_key(12))


def written(node: Node) -> Iterator[tuple[str, bytes]]:
    """Every file that agent and charon made, and what the kernel tells everybody of them."""
    for path in node.directory.rglob("*"):
        if path.is_file() and path != node.config:
            yield str(path), path.read_bytes()
    assert node.agent is not None
    for pid in (node.agent.pid, node.charon_pid):
        for name in ("cmdline", "environ", "comm"):
            yield f"{pid} {name}", Path(f"/proc/{pid}/{name}").read_bytes()


def said(node: Node) -> Iterator[tuple[str, str]]:
    """What each verb that asks the agent says; `stop` is for the end."""
    for verb in ("status", "status --json", "guard status", "guard down", "guard up", "reload"):
        done = node.ask(verb, *(("--config", str(node.config)) if "guard" in verb else ()))
        yield verb, done.stdout + done.stderr


def give(node: Node, leaf: Issued, **changes: object) -> None:
    """Give a VM a certificate and its key."""
    configure(node, leaf=leaf, cas=[CA], log_level=2, **changes)


def test_nowhere(node: Node) -> None:
    """After a start, a reload to another key, refused reloads and each verb: in no file, log,
    answer, command line or environment, though charon logs much."""
    give(node, FIRST)
    node.start()
    until(node.enforces, "policies")
    give(node, SECOND)
    assert node.ask("reload").returncode == 0
    outputs: list[tuple[str, str | bytes]] = [*said(node)]

    for right, wrong in (
        ("-----END PRIVATE KEY-----", ""),
        ("MIGH", "MI-GH"),
        ("10.9.0.0/24", "10.9.0.0/99"),
        ("instance_private_key", "instance_certificate"),
    ):
        give(node, FIRST)
        node.config.write_text(node.config.read_text().replace(right, wrong))
        assert node.ask("reload").returncode == 1
        outputs += said(node)
        outputs.append(("check", subprocess.run(
            [*AGENT, "check", "--machine", str(node.config)],
            check=False, capture_output=True, text=True, timeout=60,
        ).stderr))  # fmt: skip
    until(lambda: "reload-refused" in str(node.status()), "the refusal is told")

    for key in (FIRST.key, SECOND.key):
        for where, content in (*written(node), *outputs):
            assert not found_in(content, key), where
    node.end_agent()
    code, refusal = node.run_and_fail()
    assert code == 1
    assert not found_in(refusal, FIRST.key)


def test_no_core(node: Node) -> None:
    """Neither agent nor charon may leave a core, however the limits were when the agent began."""
    give(node, FIRST)
    before = resource.getrlimit(resource.RLIMIT_CORE)
    resource.setrlimit(resource.RLIMIT_CORE, (before[1], before[1]))
    try:
        node.start()
    finally:
        resource.setrlimit(resource.RLIMIT_CORE, before)
    until(node.enforces, "policies")
    assert node.agent is not None

    for pid in (node.agent.pid, node.charon_pid):
        limits = Path(f"/proc/{pid}/limits").read_text().splitlines()
        (core,) = [line.split()[4:6] for line in limits if line.startswith("Max core file size")]
        assert core == ["0", "0"]
        assert int(Path(f"/proc/{pid}/coredump_filter").read_text(), 16) == 0

    node.agent.send_signal(signal.SIGABRT)
    assert node.agent.wait(DEADLINE) == -signal.SIGABRT
    node.agent = None
    os.kill(node.charon_pid, signal.SIGABRT)
    until(lambda: not Path(f"/proc/{node.charon_pid}/exe").exists(), "charon ends")
    for place in (Path("/"), Path.cwd(), node.directory, node.run_dir):
        assert [path for path in place.glob("core*") if path.is_file()] == []


HOLDER = """
import os, resource, sys, time
from ipsec_agent.host.inspection import forbid_inspection
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
import ctypes
ctypes.CDLL(None).prctl(4, 1, 0, 0, 0)
if sys.argv[1] == "forbid":
    forbid_inspection()
print("ready", flush=True)
time.sleep(60)
"""

READER = """
import os, sys
os.setresgid(65534, 65534, 65534); os.setresuid(65534, 65534, 65534)
open(f"/proc/{sys.argv[1]}/mem", "rb").close()
"""


@pytest.mark.parametrize(("how", "reads"), [("allow", True), ("forbid", False)])
def test_memory(how: str, reads: bool) -> None:
    """Who has the same user as a process that forbids it cannot read its memory; else he can."""
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLDER, how], stdout=subprocess.PIPE, text=True
    )
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "ready\n"
        reader = subprocess.run(
            [sys.executable, "-c", READER, str(holder.pid)],
            check=False, capture_output=True, text=True, timeout=DEADLINE,
        )  # fmt: skip
    finally:
        holder.kill()
        holder.communicate()
    assert (reader.returncode == 0) is reads
    assert ("PermissionError" in reader.stderr) is not reads
