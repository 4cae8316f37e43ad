"""A VM that lies moves its IKE_SA to another's address, as if a NAT had; that needs no ESP."""

import contextlib
from pathlib import Path

import pytest
from vici.exception import CommandException

from tests.charon.nodes import need_ike_sas, until
from tests.kernel.guard_lab import run
from tests.lab.deployment import A, C, peer_of
from tests.lab.test_liar import OTHER, Bed, bed, lie
from tests.lab.truth import charon_of

pytestmark = [pytest.mark.charon, pytest.mark.timeout(120)]

FALSE_SOURCE = f"""table ip moved {{ chain out {{
type nat hook postrouting priority 100; ip daddr {A} udp sport 4500 snat to {OTHER}
}}; }}"""


def initiate(laid: Bed, child: str) -> None:
    """Have the liar negotiate; without ESP no CHILD_SA comes of it."""
    with contextlib.suppress(CommandException):
        laid.initiate(child)


def remotes(laid: Bed) -> set[str]:
    """Where the victim's charon has the peers of its IKE_SAs."""
    with charon_of(laid.victim) as session:
        found = [sa for listed in session.list_sas() for sa in listed.values()]
    return {sa["remote-host"].decode() for sa in found}


def test_it_is_ended_and_names_who_made_it(tmp_path: Path) -> None:
    """charon follows one message with a false source; the agent ends what came of it."""
    with bed(tmp_path) as laid:
        need_ike_sas(laid.victim)
        laid.load(encap="yes", lie=lie("transport", "dynamic"), more=lie("transport", "dynamic"))
        initiate(laid, "lie")
        assert C in remotes(laid)
        there = {"established", "installed"}
        until(lambda: peer_of(laid.victim, C).get("state") in there, "the agent has seen it")
        run("nft", "-f", "-", ns=laid.liar.name, text=FALSE_SOURCE)

        with laid.victim.held():
            initiate(laid, "more")
            assert OTHER in remotes(laid)

        told = f"critical: {C} made an SA that it then moved to {OTHER}"
        until(lambda: told in laid.told(), lambda: f"{told}: {laid.victim.log[-3000:]}")
        until(lambda: OTHER not in remotes(laid), "it is ended")
