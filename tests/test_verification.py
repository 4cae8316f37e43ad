"""What many peers that are proved at once cost: readings are shared."""

import asyncio
import contextlib
from ipaddress import IPv4Address
from pathlib import Path
from typing import Self

import pytest

from ipsec_agent import verification
from ipsec_agent.cli import main
from ipsec_agent.core.model import Address
from ipsec_agent.core.proof import Observation, Pair
from ipsec_agent.core.status import document
from ipsec_agent.verification import Shared, verify
from tests.certificates import make_ca, make_leaf
from tests.core.test_status import snapshot
from tests.manifests import manifest
from tests.vm import OWN, healthy_vm, with_sa

GIVEN = ["doctor", "--firewall", "aws", "--probe"]
PEERS = tuple(IPv4Address("10.0.1.0") + number for number in range(40))


class Kernel:
    """One that counts how often all of its SAs are listed."""

    listed = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def list(self) -> None:
        """Learn of the SAs."""
        self.listed += 1


def test_all_sas_are_listed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """However many peers there are; what is read for each is told by its own SAs."""
    kernel, places = Kernel(), []

    async def observed(pair: Pair, _echo: object, sas: object, *_: object) -> Observation:
        assert sas is kernel
        places.append(pair.peer)
        await asyncio.sleep(0)
        return Observation(pair)

    monkeypatch.setattr(verification, "PeerSas", lambda: kernel)
    monkeypatch.setattr(verification, "Echo", lambda *_: contextlib.nullcontext())
    monkeypatch.setattr(verification, "_observed", observed)
    monkeypatch.setattr(verification, "source_for", lambda _: OWN)
    status = document(snapshot(with_sa(healthy_vm())))

    async def all_of_them() -> list[Address]:
        return [seen.pair.peer async for seen in verify(PEERS, lambda: status, 1.0)]

    assert asyncio.run(all_of_them()) == list(PEERS)
    assert places == list(PEERS)
    assert kernel.listed == 1


def test_a_reading_began_after_it_was_asked_for() -> None:
    """Who comes while one is under way gets the next one."""
    readings = iter(range(9))

    async def late() -> list[int]:
        under_way, gate = asyncio.Event(), asyncio.Event()

        async def read() -> int:
            under_way.set()
            await gate.wait()
            return next(readings)

        shared = Shared(read)
        first = asyncio.create_task(shared.get())
        await under_way.wait()
        later = [asyncio.create_task(shared.get()) for _ in range(2)]
        # Each has asked before the first reading ends.
        await asyncio.sleep(0)
        gate.set()
        return [*(await asyncio.gather(*later)), await first]

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
