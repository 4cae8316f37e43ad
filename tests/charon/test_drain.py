"""The gentle shutdown with a real charon, real jobs, and with or without an agent."""

import contextlib
import json
import re
import signal
import stat
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.charon.nodes import AGENT, SCALE, Node, need_ike_sas, network, until
from tests.charon.shared_manifest import EXPECTED, configure
from tests.lab.truth import alive

pytestmark = pytest.mark.charon

B = "10.9.0.2"


@contextlib.contextmanager
def job(node: Node, name: str) -> Iterator[subprocess.Popen[bytes]]:
    """A job of BOSH's on a node, with its pid file."""
    path = node.directory / "vcap/sys/run" / name / f"{name}.pid"
    path.parent.mkdir(parents=True)
    with subprocess.Popen(["sleep", "300"]) as process:
        path.write_text(f"{process.pid}\n")
        try:
            yield process
        finally:
            process.kill()


@contextlib.contextmanager
def drain(node: Node, *more: str) -> Iterator[subprocess.Popen[str]]:
    """`ipsec-agent drain` on a node; it ends with the test at the latest."""
    words = ("drain", "--config", str(node.config), "--vcap", str(node.directory / "vcap"), *more)
    with subprocess.Popen(
        node.command(*AGENT, *words), stdin=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def record(node: Node) -> dict[str, object]:
    """What the drain's file says; nothing without one."""
    with contextlib.suppress(FileNotFoundError):
        return dict(json.loads((node.run_dir / "drain.json").read_text()))
    return {}


def waits(node: Node, *names: str) -> bool:
    """Whether the drain waits for these jobs."""
    return [one["name"] for one in record(node).get("waits", ())] == [*names]  # type: ignore[attr-defined]


def said(process: subprocess.Popen[str]) -> str:
    """The log of a drain that must end, and well."""
    _, log = process.communicate(timeout=30 * SCALE)
    assert process.returncode == 0, log
    return log


def guarded(node: Node) -> bool:
    """Whether the guard's table is loaded."""
    words = node.command("nft", "list", "chain", "inet", "ipsec_agent", "out")
    return subprocess.run(words, check=False, capture_output=True, timeout=20).returncode == 0


def test_ipsec_leaves_last(tmp_path: Path) -> None:
    """It stays while another job runs, with an agent and without; then the peer is told at once."""
    with network(tmp_path, 2, "cd") as (ours, theirs), job(ours, "nfs") as nfs:
        for node in (ours, theirs):
            configure(node)
            node.up()
        need_ike_sas(ours)
        ours.send(B)
        until(lambda: any(it["ike_sas"] for it in theirs.status()["peers"]), "IKE works")
        charon = ours.charon_pid
        with drain(ours, "--timeout", "60") as process:
            until(lambda: waits(ours, "nfs"), "it waits")
            assert stat.S_IMODE((ours.run_dir / "drain.json").stat().st_mode) == 0o600
            status = until(lambda: (s := ours.status()).get("state") == "draining" and s, "seen")
            assert status["drain"]["waits"] == [{"name": "nfs", "pid": nfs.pid}]
            text = ours.ask("status").stdout
            assert re.search(rf"IPsec is draining: it waits for nfs \(pid {nfs.pid}\), for", text)

            assert ours.end_agent() == 0
            gone = ours.ask("status", "--json")
            assert gone.returncode == 3
            assert json.loads(gone.stdout)["state"] == "draining"
            assert gone.stderr.startswith("ipsec-agent: IPsec is draining: it waits for nfs")
            assert (ours.charon_pid, ours.policies()) == (charon, EXPECTED)

            nfs.kill()
            log = said(process)
        ended = time.monotonic()
        assert "IPsec has ended; the guard stays" in log
        assert "not_waited_for" not in log
        assert not alive(charon)
        assert (ours.policies(), guarded(ours)) == ([], True)
        until(lambda: "received DELETE for IKE_SA" in theirs.charon_log, "told", 1.0 * SCALE)
        assert time.monotonic() - ended < 1.0 * SCALE
        done = ours.ask("status", "--json")
        assert done.returncode == 3
        assert json.loads(done.stdout)["state"] == "stopped"
        assert done.stderr.startswith("ipsec-agent: a drain has ended IPsec, and the guard stays\n")


def test_a_job_that_never_ends(node: Node) -> None:
    """At the end of its patience the drain has the agent end charon, and names the job."""
    node.up()
    assert node.agent is not None
    charon = node.charon_pid
    with job(node, "forever") as forever, drain(node, "--timeout", "1") as process:
        log = said(process)

        assert f'"not_waited_for": "forever (pid {forever.pid})"' in log
        assert node.agent.wait(20) == 0
        assert not alive(charon)
        assert "stopping charon, then the agent" in node.log
        assert guarded(node)


def test_the_next_agent_and_the_second_signal(node: Node) -> None:
    """An agent that starts ends the drain, and adopts charon. A second signal ends the wait now."""
    charon = node.up()["charon"]["pid"]
    node.end_agent()
    with job(node, "nfs") as nfs:
        with drain(node, "--timeout", "300") as process:
            until(lambda: waits(node, "nfs"), "it waits")
            status = node.up()
            assert "the wait was given up; IPsec goes on" in said(process)
        assert (status["charon"]["pid"], status["state"], record(node)) == (charon, "degraded", {})

        node.end_agent()
        with drain(node, "--timeout", "300") as process:
            until(lambda: waits(node, "nfs"), "it waits")
            process.send_signal(signal.SIGTERM)
            time.sleep(1)
            assert (process.poll(), node.policies()) == (None, EXPECTED)
            began = time.monotonic()
            process.send_signal(signal.SIGINT)
            log = said(process)
        assert time.monotonic() - began < 5 * SCALE
        assert "a second signal" in log
        assert f'"not_waited_for": "nfs (pid {nfs.pid})"' in log
        assert node.policies() == []


def test_keep(node: Node) -> None:
    """`--keep` only waits; a drain that comes later ends the one before."""
    node.up()
    with job(node, "nfs") as nfs, drain(node, "--timeout", "300") as first:
        until(lambda: waits(node, "nfs"), "it waits")
        with drain(node, "--keep", "--timeout", "300") as second:
            assert "the wait was given up; IPsec goes on" in said(first)
            until(lambda: waits(node, "nfs"), "the second waits")
            nfs.kill()
            assert "the wait is over; IPsec goes on" in said(second)
    assert (record(node), node.policies()) == ({}, EXPECTED)
    assert node.status()["drain"] is None


def test_an_agent_that_hangs(node: Node) -> None:
    """charon ends without it; and once it goes on, it starts no other, but keeps the guard."""
    node.up()
    charon = node.charon_pid
    with node.held(), drain(node, "--timeout", "0") as process:
        said(process)
        assert not alive(charon)
        assert node.policies() == []
    subprocess.run(node.command("nft", "delete", "table", "inet", "ipsec_agent"), check=True)
    until(lambda: guarded(node), "the guard is back")
    # A look from before it was held is still the answer where the next one takes its time.
    status = until(lambda: (s := node.status()).get("state") == "draining" and s, "seen")
    assert status["charon"] is None
    (down,) = (it["message"] for it in status["problems"] if it["code"] == "charon-down")
    assert down == "charon is not running: `ipsec-agent drain` has ended it"
    assert node.log.count("start charon") == 1
