"""What many peers that are proved at once cost: readings are shared."""

import asyncio
from ipaddress import IPv4Address
from pathlib import Path
from typing import cast

import pytest

from ipsec_agent import verification
from ipsec_agent.cli import main
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import SecurityAssociation
from ipsec_agent.core.proof import Pair
from ipsec_agent.core.traffic import by_peer
from ipsec_agent.host.xfrm import Xfrm
from ipsec_agent.verification import Counters, Shared
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest
from tests.vm import OWN

GIVEN = ["doctor", "--firewall", "aws", "--probe"]
PEERS = tuple(IPv4Address("10.0.1.0") + number for number in range(40))
STATES = tuple(
    SecurityAssociation(source, destination, spi, 1, packets=int(peer) % 256 + 100 * way)
    for number, peer in enumerate(PEERS)
    for way, (source, destination, spi) in enumerate(
        ((peer, OWN, 1000 + number), (OWN, peer, 2000 + number))
    )
)


class Kernel:
    """One that has these SAs, and counts how often it is asked."""

    asked = 0

    async def states(self) -> tuple[SecurityAssociation, ...]:
        """All of them."""
        self.asked += 1
        await asyncio.sleep(0.01)
        return STATES


def test_many_peers_share_a_reading(monkeypatch: pytest.MonkeyPatch) -> None:
    """And each is told its own counters, without a look at the SAs of all others."""
    kernel, looked = Kernel(), []

    def counted(states: tuple[SecurityAssociation, ...], own: tuple[Address, ...]) -> object:
        looked.append(len(tuple(states)))
        return by_peer(states, own)

    monkeypatch.setattr(verification, "by_peer", counted)

    async def all_of_them() -> list[tuple[dict[int, int], dict[int, int]]]:
        counters = Counters(cast("Xfrm", kernel))
        pairs = [Pair(peer, OWN, encrypted=True, because="") for peer in PEERS]
        pairs.append(Pair(IPv4Address("192.0.2.1"), OWN, encrypted=True, because=""))
        return list(await asyncio.gather(*map(counters.of, pairs)))

    *found, none = asyncio.run(all_of_them())

    assert found == [({1000 + n: n}, {2000 + n: 100 + n}) for n in range(len(PEERS))]
    assert none == ({}, {})
    # The one that the first asked for, and one for all who came while it was under way.
    assert kernel.asked == 2
    assert looked == [2] * len(PEERS) + [0]


def test_a_reading_began_after_it_was_asked_for() -> None:
    """Who comes while one is under way gets the next one."""
    readings = iter(range(9))

    async def read() -> int:
        await asyncio.sleep(0.02)
        return next(readings)

    async def late() -> list[int]:
        shared = Shared(read)
        first = asyncio.create_task(shared.get())
        await asyncio.sleep(0.01)
        return [*(await asyncio.gather(shared.get(), shared.get())), await first]

    assert asyncio.run(late()) == [1, 1, 0]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["doctor", "--probe", "10.0.1.9"], "doctor --firewall aws --probe 10.0.1.9"),
        ([*GIVEN, "10.0.1.9"], "no agent is running"),
    ],
)
def test_a_probe_that_cannot_be(
    words: list[str],
    said: str,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It says why; the rules are printed nevertheless."""
    path = tmp_path / "ipsec.yml"
    ca = make_ca()
    path.write_text(manifest(["10.0.1.0/24"], leaf=make_leaf(ca), cas=[ca]))
    monkeypatch.setattr("os.geteuid", lambda: 0)

    code = main([*words, "--config", str(path), "--socket", str(tmp_path / "control.sock")])

    shown = capsys.readouterr()
    assert code
    assert said in shown.err
    assert ("authorize-security-group-ingress" in shown.out) is ("--firewall" in words)
