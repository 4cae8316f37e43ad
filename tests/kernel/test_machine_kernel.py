"""What the machine keeps of a real kernel's links and guard, and when it looks again."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import pytest

from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.model import DesiredGuard, LinkId
from ipsec_agent.host.links import open_links
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.xfrm import open_xfrm
from ipsec_agent.machine_kernel import KernelHost
from tests.kernel.conftest import Run
from tests.kernel.guard_lab import GUARD, SCALE

pytestmark = pytest.mark.kernel

T = TypeVar("T")

QUIET = 0.3 * SCALE
SOON = 5.0 * SCALE
TEXT = ruleset(GUARD)
LONG = 60.0
INSIDE = frozenset({LinkId(4711, "gone")})


@dataclass
class Kept:
    """A host that listens.

    Attributes:
        readings: how often the kernel was asked, by what.
        woken: set at each event.
    """

    host: KernelHost
    readings: Counter[str]
    woken: asyncio.Event

    async def mtu(self, name: str) -> int:
        """The MTU of a link."""
        return next(link.mtu for link in (await self.host.network()).links if link.name == name)

    async def mark(self) -> str:
        """The mark of the guard, "" without one."""
        table = await self.host.guard()
        return table.mark if table else ""

    async def others(self, run: Run, *command: str) -> None:
        """Have another program change something, and hear of it."""
        self.woken.clear()
        await asyncio.to_thread(run, *command)
        async with asyncio.timeout(SOON):
            await self.woken.wait()


@asynccontextmanager
async def kept(tmp_path: Path, lasts: float = LONG) -> AsyncIterator[Kept]:
    """A host whose listeners listen, and whose readings are counted."""
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
            host = KernelHost(
                xfrm,
                links,
                nft,
                tmp_path / "guard.nft",
                inside=lambda _: INSIDE,
                lasts=lambda: lasts,
            )
        woken = asyncio.Event()
        listening = asyncio.create_task(host.watch_kernel(woken.set))
        try:
            await asyncio.sleep(QUIET)
            yield Kept(host, readings, woken)
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


async def test_what_others_change_is_read(machine: Run, tmp_path: Path) -> None:
    """By the event, and at once; a link's name stands in the guard's listing, too."""
    async with kept(tmp_path) as it:
        await it.host.load_guard(DesiredGuard(TEXT, mark(TEXT)))
        assert await it.mark() == mark(TEXT)
        await it.others(machine, "nft", "flush", "chain", "inet", "ipsec_agent", "in4")
        assert await it.mark() == ""
        await it.others(machine, "nft", "delete", "table", "inet", "ipsec_agent")
        assert await it.host.guard() is None
        assert await it.mtu("v0") == 1500

        before = it.readings["guard"]
        await it.others(machine, "ip", "link", "set", "v0", "mtu", "1400")
        assert await it.mtu("v0") == 1400
        assert await it.host.guard() is None
        assert it.readings["guard"] == before
        await it.others(machine, "ip", "link", "set", "v0", "name", "v2")
        assert await it.mtu("v2") == 1400
        assert await it.host.guard() is None
        assert it.readings["guard"] == before + 1


async def test_what_it_changes_itself_is_read(machine: Run, tmp_path: Path) -> None:
    """No event tells it of its own changes of the guard."""
    async with kept(tmp_path) as it:
        assert await it.host.guard() is None
        await it.host.load_guard(DesiredGuard(TEXT, mark(TEXT)))
        assert await it.mark() == mark(TEXT)
        assert await it.mtu("v0") == 1500
        await it.host.exempt_links(tuple(INSIDE), (4789,))
        table = await it.host.guard()
        assert table is not None
        assert table.exempt == tuple(INSIDE)
        await it.host.remove_guard()
        assert await it.host.guard() is None

        assert await it.mtu("v0") == 1500
        (link,) = [one for one in (await it.host.network()).links if one.name == "v0"]
        await it.host.set_mtu(link.index, 1400)
        assert await it.mtu("v0") == 1400
    assert "mtu 1400" in machine("ip", "link", "show", "v0")


async def test_between_passes_the_guard_comes_back_with_no_further_link_exempt(
    machine: Run, tmp_path: Path
) -> None:
    """One that is as it should be stays; what only the wish exempts has to wait for a pass."""
    more = DesiredGuard(TEXT, mark(TEXT), exempt=(*INSIDE, LinkId(4712, "gone, too")))
    async with kept(tmp_path) as it:
        assert await it.mtu("v0") == 1500
        await it.host.load_guard(DesiredGuard(TEXT, mark(TEXT), exempt=tuple(INSIDE)))
        assert not await it.host.restore_guard(more)
        await it.others(machine, "nft", "delete", "table", "inet", "ipsec_agent")

        assert await it.host.restore_guard(more)

        table = await it.host.guard()
        assert table is not None
        assert (table.mark, table.exempt) == (mark(TEXT), tuple(INSIDE))


async def test_a_reading_ends_with_its_time(
    machine: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Packets change the guard's counters without an event: it is never older than some seconds."""
    _ = machine
    monkeypatch.setattr("ipsec_agent.machine_kernel.TABLE_LASTS", 0.1)
    async with kept(tmp_path) as it:
        await it.mark()
        await it.mtu("v0")
        await asyncio.sleep(0.2)
        await it.mark()
        await it.mtu("v0")
        assert it.readings == {"guard": 2, "network": 1}
