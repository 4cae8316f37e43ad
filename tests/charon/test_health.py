"""Health of a real agent: it is that of now, and a peer that speaks clear is named."""

import asyncio
import os
import re
import shutil
import signal
import socket
import time
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.core.charon_log import Said, Sign, sign
from ipsec_agent.host.charon_events import CharonEvents
from tests.certificates import make_ca, make_leaf, rsa_key
from tests.charon.nodes import Node, knows, need_ike_sas, network, until
from tests.charon.shared_manifest import configure as give
from tests.charon.wedge import wedge
from tests.lab.deployment import A, B, configure

pytestmark = [pytest.mark.charon, pytest.mark.timeout(120)]


def codes(node: Node) -> dict[str, str]:
    """The problems of a node's status, each with its message."""
    return {it["code"]: it["message"] for it in node.status().get("problems", ())}


def test_the_status_is_of_now(tmp_path: Path) -> None:
    """Each packet is in the very next answer, though no event tells of it.

    On a machine that is too busy for a look within a second the answer is the one before, which
    tells its age.
    """
    with network(tmp_path, 2, "cn") as (bare, guarded):
        configure([bare, guarded], [], interval=60)
        guarded.up()
        # What is sent to a neighbour that is not known waits.
        knows(bare, B, guarded)
        for count in range(1, 6):
            bare.send(B)
            status = until(lambda: (it := guarded.status())["age"] == 0 and it, "a look of now")
            assert status["guard"]["dropped_in"] == count


def test_a_charon_that_hangs_does_not_hold_up_the_status(tmp_path: Path) -> None:
    """After a second it is the last look, which says how old it is."""
    held: list[socket.socket] = []
    with network(tmp_path, 1, "cw") as (node,):
        configure([node], [])
        node.up()
        try:
            with node.held():
                wedge(node, A, "10.9.0.250", held)
            began = time.monotonic()
            status = node.status()
            took = time.monotonic() - began
            shown = node.ask("status").stdout
        finally:
            for channel in held:
                channel.close()

    assert took < 1.5
    assert status["age"] > 0
    assert " ago\n" in shown.partition("\n")[0] + "\n"


def peer_of(node: Node, address: str = B) -> dict[str, Any]:
    """A peer in the status, empty where it is not listed."""
    peers: list[dict[str, Any]] = node.status().get("peers", [])
    return next((peer for peer in peers if peer["address"] == address), {})


def refused(ours: Node, theirs: Node) -> None:
    """Start both; theirs knows only a CA of its own, and the status of ours lists the refusal."""
    stranger = make_ca("Strange CA", key=rsa_key(3072, 110))
    give(ours)
    give(theirs, leaf=make_leaf(stranger, "stranger"), cas=[stranger])
    ours.up()
    theirs.up()
    ours.send(B)
    until(lambda: peer_of(ours).get("problem") == "peer-refuses-us", "the refusal is listed")


def test_a_refused_peer_is_listed(tmp_path: Path) -> None:
    """Though no SA was ever there; it stays in the list when it vanishes without a word."""
    with network(tmp_path, 2, "cr") as (ours, theirs):
        refused(ours, theirs)
        peer = peer_of(ours)
        assert (peer["state"], peer["child_sas"]) == ("refused", 0)
        table = ours.ask("status", "--peers").stdout
        assert re.search(rf"^{B} +refused .* no SA, peer-refuses-us$", table, re.MULTILINE)

        theirs.end_agent(signal.SIGKILL)
        os.kill(theirs.charon_pid, signal.SIGKILL)

        def silent() -> bool:
            # The kernel asks charon for an SA again once it has forgotten that it did.
            ours.send(B)
            return "peer-silent" in codes(ours)

        # It has refused us, and since then it is silent: both are said.
        until(silent, "the silence is noticed", 100, every=2)
        assert "peer-refuses-us" in codes(ours)


def test_a_refusal_outlives_agent_and_charon(tmp_path: Path) -> None:
    """As after a crash of the VM: it is listed again, though nobody tries and the peer is off."""
    with network(tmp_path, 2, "co") as (ours, theirs):
        refused(ours, theirs)
        for node in (theirs, ours):
            node.end_agent(signal.SIGKILL)
            os.kill(node.charon_pid, signal.SIGKILL)
        shutil.rmtree(ours.run_dir)

        ours.start()

        until(lambda: peer_of(ours).get("problem") == "peer-refuses-us", "it is listed again")
        assert codes(ours)["peer-refuses-us"].startswith(
            f"{B} refuses this VM's certificate or signature (charon: received AUTH"
        )
        assert "AUTHENTICATION_FAILED" not in ours.charon_log.rpartition("loaded plugins")[2]


def test_ike_only_and_a_farewell(tmp_path: Path) -> None:
    """A kernel without ESP has an IKE_SA and no more; a peer that is stopped in order is gone, and
    that is no fault."""
    with network(tmp_path, 2, "cg") as (ours, theirs):
        configure([ours, theirs], [])
        ours.up()
        theirs.up()
        need_ike_sas(ours)
        ours.send(B)
        until(lambda: peer_of(ours).get("state") == "established", "IKE works")
        if not peer_of(ours)["child_sas"]:
            table = ours.ask("status", "--peers").stdout
            assert re.search(rf"^{B} .* IKE only \(established\), no SA", table, re.MULTILINE)

        assert theirs.ask("stop").returncode == 0
        ours.send(B)
        until(lambda: "peer-gone" in codes(ours), "it is gone", 90)
        assert codes(ours)["peer-gone"].endswith(": it has ended its IKE_SA")
        # Until charon has given up what the packet made it try.
        until(lambda: peer_of(ours)["state"] == "gone", "it is listed as gone")
        assert peer_of(ours)["problem"] == "peer-gone"


async def test_what_charon_tells_of_a_peer(tmp_path: Path) -> None:
    """This version's log has the words for an answer and for a farewell, and VICI hands them on."""
    with network(tmp_path, 2, "ct") as (ours, theirs):
        configure([ours, theirs], [])
        ours.up()
        theirs.up()
        need_ike_sas(ours)
        said: list[Said] = []
        heard = asyncio.create_task(
            CharonEvents(ours.run_dir / "charon.vici").watch(lambda: None, said.append)
        )
        try:
            await asyncio.sleep(1)
            await asyncio.to_thread(ours.send, B)
            # What is established here is so there: else theirs has nothing to take leave of.
            await asyncio.to_thread(until, lambda: (Sign.PROVED, B) in map(sign, said), "IKE works")
            await asyncio.to_thread(theirs.ask, "stop")
            await asyncio.to_thread(
                until, lambda: (Sign.FAREWELL, "") in map(sign, said), "the farewell is told"
            )
        finally:
            heard.cancel()
            await asyncio.gather(heard, return_exceptions=True)

    assert (Sign.ANSWERED, B) in map(sign, said)
