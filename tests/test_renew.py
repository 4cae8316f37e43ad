"""`renew`: what the agent is asked, and what the operator is told."""

import argparse
from collections.abc import Iterable
from typing import Any

import pytest
from msgspec.structs import replace

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address, Attempt
from ipsec_agent.errors import ControlError
from ipsec_agent.renew import addresses, renew
from ipsec_agent.verbs import renew as verb
from tests.core.test_orphans import PEER, child_sa, ike_sa
from tests.core.test_rotation import NEW, drift, made, old
from tests.core.test_status import snapshot
from tests.vm import healthy_vm


class Loop:
    """A loop whose passes see one world after the other; the last one stays."""

    def __init__(self, *seen: Drift) -> None:
        self.seen = list(seen)
        self.asked: dict[str, Attempt] = {}

    async def passed(self) -> Any:
        """The next world."""
        found = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        return replace(snapshot(healthy_vm()), drift=found)

    def ask(self, names: Iterable[str]) -> None:
        """Note what is asked for."""
        self.asked |= {name: Attempt() for name in names}


def new() -> Drift:
    """The peer is moved."""
    return drift(old(), made(ike_sa(2, child_sa(2, 200)), NEW.mark))


async def asked(loop: Loop, *peers: Address) -> dict[str, Any]:
    """What comes of it."""
    return await renew(loop, loop.ask, peers)  # type: ignore[arg-type]


async def test_one_that_is_moved() -> None:
    """It waits until the peer has its new SA."""
    loop = Loop(drift(old()), drift(old()), new())
    assert await asked(loop, PEER) == {"peers": 1, "moved": [str(PEER)], "left": []}
    assert list(loop.asked) == [f"ipsec-renew-{NEW.mark}-{PEER}"]


async def test_one_that_needs_nothing() -> None:
    """Nothing is asked for."""
    loop = Loop(new())
    assert await asked(loop) == {"peers": 1, "moved": [], "left": []}
    assert not loop.asked


async def test_one_that_is_not_moved(monkeypatch: pytest.MonkeyPatch) -> None:
    """After a while it is said that it is not."""
    monkeypatch.setattr("ipsec_agent.renew.DEADLINE", 0.1)
    found = await asked(Loop(drift(old())))
    assert found["left"] == [{"address": str(PEER), "reason": ""}]
    assert found["moved"] == []


async def test_a_peer_that_is_none() -> None:
    """One without an SA, and what is no address, are refused."""
    with pytest.raises(ControlError, match="no SA with 10"):
        await asked(Loop(drift()), PEER)
    # Whatever certificate it was made with, an IKE_SA alone is nothing that could be moved.
    bare = drift(replace(old(), children=()))
    assert await asked(Loop(bare)) == {"peers": 0, "moved": [], "left": []}
    with pytest.raises(ControlError, match="no SA with 10"):
        await asked(Loop(bare), PEER)
    with pytest.raises(ControlError, match="not an IP address"):
        addresses({"peers": ["vm1"]})
    assert addresses({"peers": [str(PEER)]}) == (PEER,)
    assert addresses({}) == ()


def test_what_is_said(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    """A line for each that was moved or not, and how many needed nothing; 1 where one is left."""
    answer: dict[str, Any] = {"peers": 4, "moved": ["10.0.0.8"], "left": []}

    def ask(_socket: str, said: str, **arguments: Any) -> dict[str, Any]:
        assert (said, arguments["peers"]) == ("renew", ["10.0.0.9"])
        return answer

    monkeypatch.setattr(verb, "ask", ask)
    given = argparse.Namespace(socket="", peers=["10.0.0.9"])
    assert verb.main(given) == 0
    answer["left"] = [{"address": "10.0.0.9", "reason": "peer-refuses-us"}]
    assert verb.main(given) == 1
    said = capsys.readouterr().out
    assert "10.0.0.8: moved to the certificate in force\n" in said
    assert "3 peers: on the certificate in force already\n" in said
    assert "10.0.0.9: not moved: peer-refuses-us\n" in said
    answer |= {"peers": 0, "moved": [], "left": []}
    assert verb.main(given) == 0
    assert capsys.readouterr().out == "there is no SA with any peer, so there was nothing to move\n"
