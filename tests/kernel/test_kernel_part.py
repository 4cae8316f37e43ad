"""What the machine keeps of a real kernel's links and guard, and when it looks again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.model import DesiredGuard, LinkId
from ipsec_agent.core.steps import ExemptLinks, LoadGuard, RemoveGuard, SetMtu
from ipsec_agent.host.links import open_links
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.xfrm import open_xfrm
from ipsec_agent.kernel_part import KernelPart
from tests.configs import config
from tests.kernel.conftest import Run
from tests.kernel.guard_lab import GUARD, SCALE

pytestmark = pytest.mark.kernel

T = TypeVar("T")

QUIET = 0.3 * SCALE
SOON = 5.0 * SCALE
TEXT = ruleset(GUARD)
LONG = 60.0
INSIDE = frozenset({LinkId(4711, "gone")})


async def inside() -> frozenset[LinkId]:
    """The links that need no guard."""
    return INSIDE


@dataclass
class Kept:
    """A kernel's part that listens.

    Attributes:
        readings: how often the kernel was asked, by what.
        woken: set at each event.
    """

    part: KernelPart
    readings: Counter[str]
    woken: asyncio.Event

    async def mtu(self, name: str) -> int:
        """The MTU of a link."""
        return next(link.mtu for link in (await self.part.network()).links if link.name == name)

    async def mark(self) -> str:
        """The mark of the guard, "" without one."""
        table = await self.part.guard()
        return table.mark if table else ""

    async def others(self, run: Run, *command: str) -> None:
        """Have another program change something, and hear of it."""
        self.woken.clear()
        await asyncio.to_thread(run, *command)
        async with asyncio.timeout(SOON):
            await self.woken.wait()


@asynccontextmanager
async def kept(tmp_path: Path, lasts: float = LONG) -> AsyncIterator[Kept]:
    """A kernel's part whose listeners listen, and whose readings are counted."""
    readings: Counter[str] = Counter()

    def counted(name: str, read: Callable[[], Awaitable[T]]) -> Callable[[], Awaitable[T]]:
        def counting() -> Awaitable[T]:
            readings[name] += 1
            return read()

        return counting

    async with open_xfrm() as xfrm, open_links() as links:
        nft = Nft()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(links, "facts", counted("network", links.facts))
            patch.setattr(nft, "read", counted("guard", nft.read))
            agent = AgentConfig(state_dir=str(tmp_path), interval=2 * lasts)
            part = KernelPart(config(agent=agent), xfrm, links, nft)
        # As if links of these names led to containers.
        part._inside_now = inside  # type: ignore[method-assign]
        woken = asyncio.Event()
        listening = asyncio.create_task(part.watch(woken.set))
        try:
            await asyncio.sleep(QUIET)
            yield Kept(part, readings, woken)
        finally:
            listening.cancel()
            await asyncio.gather(listening, return_exceptions=True)


@pytest.fixture
def machine(namespace: Run) -> Run:
    """A VM with two links."""
    namespace("ip", "link", "add", "v0", "type", "veth", "peer", "name", "v1")
    return namespace


async def test_nothing_is_read_twice(machine: Run, tmp_path: Path) -> None:
    """While nothing happens, one reading is enough; policies are no news of links and guard."""
    policy = ("ip", "xfrm", "policy", "add", "src", "10.0.0.0/8", "dst", "10.0.0.0/8", "dir")
    async with kept(tmp_path) as it:
        for direction in ("out", "in"):
            assert await it.mtu("v0") == 1500
            assert await it.mark() == ""
            await it.others(machine, *policy, direction)

        assert it.readings == {"network": 1, "guard": 1}


async def test_a_question_has_its_own_counters(machine: Run, tmp_path: Path) -> None:
    """No event tells of a packet, so the guard is read again; links are not."""
    async with kept(tmp_path) as it:
        for _ in range(2):
            assert await it.mtu("v0") == 1500
            assert await it.mark() == ""
            it.part.outdate()

        assert it.readings == {"network": 1, "guard": 2}


async def test_what_others_change_is_read(machine: Run, tmp_path: Path) -> None:
    """By the event, and at once; a link's name stands in the guard's listing, too."""
    async with kept(tmp_path) as it:
        await it.part.perform(LoadGuard(DesiredGuard(TEXT, mark(TEXT))))
        assert await it.mark() == mark(TEXT)
        await it.others(machine, "nft", "flush", "chain", "inet", "ipsec_agent", "in4")
        assert await it.mark() == ""
        await it.others(machine, "nft", "delete", "table", "inet", "ipsec_agent")
        assert await it.part.guard() is None
        assert await it.mtu("v0") == 1500

        before = it.readings["guard"]
        await it.others(machine, "ip", "link", "set", "v0", "mtu", "1400")
        assert await it.mtu("v0") == 1400
        assert await it.part.guard() is None
        assert it.readings["guard"] == before
        await it.others(machine, "ip", "link", "set", "v0", "name", "v2")
        assert await it.mtu("v2") == 1400
        assert await it.part.guard() is None
        assert it.readings["guard"] == before + 1


async def test_what_it_changes_itself_is_read(machine: Run, tmp_path: Path) -> None:
    """No event tells it of its own changes of the guard."""
    async with kept(tmp_path) as it:
        assert await it.part.guard() is None
        await it.part.perform(LoadGuard(DesiredGuard(TEXT, mark(TEXT))))
        assert await it.mark() == mark(TEXT)
        assert await it.mtu("v0") == 1500
        await it.part.perform(ExemptLinks(tuple(INSIDE), (4789,)))
        table = await it.part.guard()
        assert table is not None
        assert table.exempt == tuple(INSIDE)
        await it.part.perform(RemoveGuard())
        assert await it.part.guard() is None

        assert await it.mtu("v0") == 1500
        (link,) = [one for one in (await it.part.network()).links if one.name == "v0"]
        await it.part.perform(SetMtu(link.index, 1400))
        assert await it.mtu("v0") == 1400
    assert "mtu 1400" in machine("ip", "link", "show", "v0")


async def test_between_passes_the_guard_comes_back_with_no_further_link_exempt(
    machine: Run, tmp_path: Path
) -> None:
    """One that is as it should be stays; what only the wish exempts has to wait for a pass."""
    more = DesiredGuard(TEXT, mark(TEXT), exempt=(*INSIDE, LinkId(4712, "gone, too")))
    async with kept(tmp_path) as it:
        assert await it.mtu("v0") == 1500
        await it.part.perform(LoadGuard(DesiredGuard(TEXT, mark(TEXT), exempt=tuple(INSIDE))))
        assert not await it.part.restore_guard(more)
        await it.others(machine, "nft", "delete", "table", "inet", "ipsec_agent")

        assert await it.part.restore_guard(more)

        table = await it.part.guard()
        assert table is not None
        assert (table.mark, table.exempt) == (mark(TEXT), tuple(INSIDE))


async def test_a_reading_ends_with_its_time(
    machine: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets change the guard's counters without an event: it is never older than some seconds."""
    _ = machine
    monkeypatch.setattr("ipsec_agent.kernel_part.TABLE_LASTS", 0.1)
    async with kept(tmp_path) as it:
        await it.mark()
        await it.mtu("v0")
        await asyncio.sleep(0.2)
        await it.mark()
        await it.mtu("v0")
        assert it.readings == {"guard": 2, "network": 1}
