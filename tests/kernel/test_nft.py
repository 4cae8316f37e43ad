"""The program nft: the table is tried, loaded, read, replaced under a flood, and watched."""

import asyncio
import contextlib
import errno
import functools
import json
import logging
import os
import socket
import struct
import subprocess
import sys
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.model import LinkId
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.nft_events import open_events
from ipsec_agent.host.nft_exempt import exemptions
from ipsec_agent.host.nft_image import NEW_TABLE, TABLE
from ipsec_agent.host.nft_wire import CREATE, Channel, attribute
from ipsec_agent.host.nft_wire import text as attribute_text
from tests.kernel.guard_lab import (
    A4,
    B4,
    GUARD,
    PLAIN4,
    SCALE,
    SOON,
    A,
    B,
    Capture,
    Flood,
    index,
    link,
    namespaces,
    run,
    send_udp,
)
from tests.lab.namespaces import inside

pytestmark = pytest.mark.kernel

TEXT = ruleset(GUARD)
FIGURES = logging.getLogger(__name__)


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """A fresh lab for each test, and the test itself inside of VM A."""
    with namespaces(), inside(A):
        yield


@contextlib.asynccontextmanager
async def watched(nft: Nft) -> AsyncIterator[asyncio.Event]:
    """An event that is set when the table is changed by others."""
    rung = asyncio.Event()
    task = asyncio.create_task(nft.watch(rung.set))
    # It rings once its socket is open.
    await asyncio.wait_for(rung.wait(), SOON)
    rung.clear()
    try:
        yield rung
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def intact(nft: Nft, text: str = TEXT) -> bool:
    """Whether the table is what the text loaded."""
    table = await nft.read()
    return table is not None and table.mark == mark(text)


async def test_absent() -> None:
    """No table reads as None, and taking away what is not there is no error."""
    nft = Nft()

    assert await nft.read() is None
    await nft.delete()
    assert await nft.read() is None


async def test_loaded_read_and_deleted() -> None:
    """What was loaded is recognised; a table that was taken away is gone."""
    nft = Nft()

    await nft.check(TEXT)
    assert await nft.read() is None
    await nft.load(TEXT)

    assert await intact(nft)
    await nft.delete()
    assert await nft.read() is None


async def test_the_same_text_has_the_same_form_each_time() -> None:
    """Loaded over itself, over another, with counters and links: one text, one form."""
    nft = Nft()
    await nft.load(TEXT)
    form = nft.form_of(TEXT)
    send_udp(A, A4, B4)
    assert await intact(nft)
    nft.exempt([link(A, "ac0"), LinkId(4711, "gone")])
    assert await intact(nft)

    await nft.load(ruleset(Guard(Promise((), ()))))
    assert nft.form_of(TEXT) is None
    await nft.load(TEXT, [link(A, "ac0")])

    assert form == nft.form_of(TEXT)
    assert await intact(nft)


async def test_links_are_changed_without_touching_the_counters() -> None:
    """The links that are not judged come and go; a link's name does not matter."""
    nft = Nft()
    inner = link(A, "ac0")
    await nft.load(TEXT, [inner])
    send_udp(A, A4, B4)
    # Before Linux 6.2 a link is renamed only while it is down.
    run("ip", "link", "set", "ac0", "down")
    run("ip", "link", "set", "ac0", "name", "other")

    table = await nft.read()
    assert table is not None
    assert table.exempt == (inner,)
    nft.exempt([])

    table = await nft.read()
    assert table is not None
    assert table.exempt == ()
    assert [(peer.address, peer.packets) for peer in table.clear_out] == [(ip_address(B4), 1)]


@pytest.mark.parametrize(
    "change",
    [
        "delete table inet ipsec_agent",
        "flush ruleset",
        "flush table inet ipsec_agent",
        "flush chain inet ipsec_agent out4",
        "flush set inet ipsec_agent outside4",
        "insert rule inet ipsec_agent out accept",
        "add rule inet ipsec_agent clear_out6 accept",
        "add element inet ipsec_agent outside4 { 10.77.0.2 }",
        "add chain inet ipsec_agent other { type filter hook postrouting priority 0; }",
        "add table inet ipsec_agent { flags dormant; }",
        "add chain inet ipsec_agent out { policy drop; }",
        "insert rule inet ipsec_agent clear_out4 counter accept",
    ],
)
async def test_an_alteration_is_noticed_at_once(change: str) -> None:
    """By event within half a second, by form whenever it is read."""
    nft = Nft()
    await nft.load(TEXT)
    async with watched(nft) as rung:
        begun = time.monotonic()
        # A program whose process id the agent does not know.
        await asyncio.to_thread(run, "nft", change, ns=A)
        await asyncio.wait_for(rung.wait(), 0.5 * SCALE)
        took = time.monotonic() - begun

        assert not await intact(nft)

    FIGURES.info("%s: noticed after %.0f ms, the foreign nft included", change, took * 1000)


async def test_a_changed_exemption_is_noticed() -> None:
    """Somebody exempts the uplink: an event, and the listing shows it."""
    nft = Nft()
    await nft.load(TEXT)
    async with watched(nft) as rung:
        text = f'add element inet ipsec_agent exempt {{ {index(A, "a0")} . "a0" }}'
        await asyncio.to_thread(run, "nft", text, ns=A)
        await asyncio.wait_for(rung.wait(), 0.5 * SCALE)

    table = await nft.read()
    assert table is not None
    assert table.exempt == (link(A, "a0"),)


async def test_lost_events_wake(monkeypatch: pytest.MonkeyPatch) -> None:
    """After an overflow it listens anew, wakes for what it may have missed, and hears the next."""
    nft = Nft()
    await nft.load(TEXT)
    small = functools.partial(_with_small_buffer, open_events)
    monkeypatch.setattr("ipsec_agent.host.nft.open_events", small)
    async with watched(nft) as rung:
        # Blocks the loop, so that nobody takes what comes.
        for number in range(20):
            run("nft", f"add table inet other{number}", ns=A)
        assert not rung.is_set()
        await asyncio.wait_for(rung.wait(), 0.5 * SCALE)
        rung.clear()
        await asyncio.sleep(0.1 * SCALE)
        await asyncio.to_thread(run, "nft", "flush chain inet ipsec_agent in4", ns=A)
        await asyncio.wait_for(rung.wait(), 0.5 * SCALE)


def _with_small_buffer(open_socket: Callable[[], socket.socket]) -> socket.socket:
    events = open_socket()
    events.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2304)
    return events


async def test_our_own_work_other_tables_and_packets_wake_nobody() -> None:
    """Else the agent would wake itself, and be woken by every container that starts."""
    nft = Nft()
    async with watched(nft) as rung:
        await nft.load(TEXT)
        await nft.load(TEXT)
        nft.exempt([LinkId(4711, "gone")])
        await asyncio.to_thread(run, "nft", "add table inet other", ns=A)
        for number in range(20):
            send_udp(A, A4, f"10.77.3.{number}")
        await asyncio.sleep(0.2 * SCALE)

        assert not rung.is_set()
        table = await nft.read()
        assert table is not None
        assert len(table.clear_out) == 20


@pytest.mark.parametrize(
    "broken",
    [
        TEXT.replace("drop", "drip"),
        TEXT.replace("10.77.9.0-10.77.9.255", "10.77.9.0-10.78.9.255"),
        TEXT.removesuffix("}\n"),
        TEXT + "add rule inet ipsec_agent absent accept\n",
        TEXT.replace("jump ike_out", "jump ike_elsewhere"),
    ],
)
async def test_what_does_not_load_changes_nothing(broken: str) -> None:
    """It is refused by the check already, and by a load the old table stays whole."""
    nft = Nft()
    await nft.load(TEXT)
    assert broken != TEXT

    with pytest.raises(KernelError, match="does not load: "):
        await nft.check(broken)
    with pytest.raises(KernelError, match="does not load: "):
        await nft.load(broken)

    assert await intact(nft)
    assert not send_udp(A, A4, B4)


async def test_the_next_process_remembers(tmp_path: Path) -> None:
    """It need not load the same table again; without a memory, or a broken one, it must."""
    memory = tmp_path / "guard.json"
    await Nft(memory).load(TEXT)

    assert await intact(Nft(memory))
    table, stranger = await Nft(memory).read(), await Nft().read()
    assert table is not None
    assert table.mark == mark(TEXT)
    assert stranger is not None
    assert stranger.mark == ""
    run("nft", "flush chain inet ipsec_agent out")
    assert not await intact(Nft(memory))
    memory.write_text("[")
    assert Nft(memory).form_of(TEXT) is None


async def test_the_saved_file_loads_by_nft_alone(tmp_path: Path) -> None:
    """The same text, by `nft -f FILE`, first and again, is the same table."""
    saved = tmp_path / "guard.nft"
    saved.write_text(TEXT)
    nft = Nft(tmp_path / "guard.json")
    await nft.load(TEXT)
    await nft.delete()

    for _ in range(2):
        run("nft", "-f", str(saved))

        assert await intact(nft)
    assert not send_udp(A, A4, B4)


async def test_a_table_that_another_program_loaded_is_learnt(tmp_path: Path) -> None:
    """As at boot: the form of a text is found without touching the table or its counters."""
    run("nft", "-f", "-", text=TEXT)
    send_udp(A, A4, B4)
    nft = Nft()
    assert not await intact(nft)

    await nft.learn(ruleset(Guard(Promise((), ()))))
    assert not await intact(nft)
    await nft.learn(TEXT)

    assert await intact(nft)
    table = await nft.read()
    assert table is not None
    # The kernel may have sent something by itself since, which is dropped as well.
    assert table.dropped_out >= 1
    run("nft", "insert rule inet ipsec_agent out accept")
    assert not await intact(nft)


async def test_what_another_nft_has_made_stays_known(tmp_path: Path) -> None:
    """The next nft may make something else of a text: what a load has made is known nevertheless,
    and so is what a trial makes."""
    memory = tmp_path / "guard.json"
    await Nft(memory).load(ruleset(Guard(Promise((), ()))))
    (form,) = json.loads(memory.read_text()).values()
    memory.write_text(json.dumps({mark(TEXT): form}))
    nft = Nft(memory)
    assert await intact(nft)

    await nft.learn(TEXT)

    assert await intact(nft)
    await Nft().load(TEXT)
    assert await intact(nft)
    assert nft.form_of(TEXT) == form


async def test_a_stranger_during_a_load(monkeypatch: pytest.MonkeyPatch) -> None:
    """Who changes the table while nft loads it is not taken for nft: his next change is noticed."""
    nft = Nft()
    await nft.load(ruleset(Guard(Promise((), ()))))
    take = nft._take

    def meddle() -> None:
        with Channel() as channel:
            channel.perform(exemptions([LinkId(4711, "gone")], None))

    with ThreadPoolExecutor(1) as stranger:

        async def taken(text: str, *options: str) -> object:
            stranger.submit(meddle).result(5)
            return await take(text, *options)

        monkeypatch.setattr(nft, "_take", taken)
        async with watched(nft) as rung:
            await nft.load(TEXT)
            await asyncio.wait_for(rung.wait(), SOON)
            await asyncio.sleep(0.1 * SCALE)
            rung.clear()
            stranger.submit(meddle).result(5)
            async with asyncio.timeout(0.5 * SCALE):
                await rung.wait()
    assert nft.form_of(TEXT) == ""


IN_A_CONTAINER = """
import asyncio, sys
from pathlib import Path
from ipsec_agent.core.guard_table import mark
from ipsec_agent.host.nft import Nft

async def run():
    text, nft = Path(sys.argv[1]).read_text(), Nft()
    rung = []
    task = asyncio.create_task(nft.watch(lambda: rung.append(None)))
    await asyncio.sleep(0.2)
    for _ in range(2):
        await nft.load(text)
        await asyncio.sleep(0.2)
        table = await nft.read()
        print(table.mark == mark(text))
    # Once as it listens, and for each load.
    print(len(rung) <= 3)
    task.cancel()

asyncio.run(run())
"""


def test_in_a_namespace_of_processes(tmp_path: Path) -> None:
    """As in a container, where the kernel names every author by another number."""
    path = tmp_path / "table.nft"
    path.write_text(TEXT)

    words = ("unshare", "--pid", "--fork", "--mount-proc", sys.executable, "-c", IN_A_CONTAINER)
    done = subprocess.run(
        (*words, str(path)), check=True, capture_output=True, text=True, timeout=60
    )

    assert done.stdout.split() == ["True", "True", "True"]


async def test_what_does_not_load_cannot_be_learnt() -> None:
    """The saved file may be damaged; no table of this VM changes."""
    nft = Nft()

    with pytest.raises(KernelError, match=r"cannot try the guard's table .*Error: "):
        await nft.learn(TEXT.replace("drop", "drip"))

    assert await nft.read() is None


async def test_many_subnets(tmp_path: Path) -> None:
    """Hundreds of subnets, nested and touching, load in reasonable time and are recognised."""
    ipsec = tuple(ip_network(f"10.{n // 250}.{n % 250}.0/24") for n in range(600))
    clear = tuple(ip_network(f"10.0.{n}.{n}/32") for n in range(250))
    text = ruleset(Guard(Promise((*ipsec, ip_network("fd00::/8")), clear)))
    nft = Nft()

    await nft.load(text)

    assert await intact(nft, text)


async def _replace(flood: Flood, texts: tuple[str, ...], at_least: int) -> int:
    nft, count = Nft(), 0
    while flood.running or count < at_least:
        await nft.load(texts[count % len(texts)])
        count += 1
    return count


async def test_replaced_under_a_flood_without_one_clear_packet() -> None:
    """300 replacements in single transactions, by a table that differs each time."""
    clear = (*GUARD.promise.no_ipsec, ip_network("10.77.200.0/24"))
    other = Guard(Promise(GUARD.promise.ipsec, clear))
    await Nft().load(TEXT)

    with Capture(B, "b0") as wire, Flood(A, B4, 8) as flood, Flood(A, B4, 8) as second:
        count = await _replace(flood, (TEXT, ruleset(other)), 300)
        (sent, passed), (more, leaked) = flood.result(), second.result()
        send_udp(A, A4, PLAIN4, b"planted")
        seen = wire.udp(1)

        assert wire.lost() == 0
    assert [packet.raw[28:] for packet in seen] == [b"planted"]
    assert (passed, leaked) == (0, 0)
    assert count >= 300
    FIGURES.info("%s replacements under %s clear datagrams", count, sent + more)


def _hang(directory: Path) -> None:
    program = directory / "nft"
    program.write_text("#!/bin/sh\nexec sleep 30\n")
    program.chmod(0o755)


def _silent(directory: Path) -> None:
    program = directory / "nft"
    program.write_text(
        "#!/bin/sh\necho 'Error: Could not process rule: Operation not supported' >&2\nexit 1\n"
    )
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("install", "deadline", "message", "hint"),
    [
        (_hang, 0.2, "nft did not answer within 0.2 s", "overloaded"),
        (_silent, SOON, "Operation not supported", "try `nft -c -f FILE` by hand"),
    ],
)
async def test_trouble_is_said_in_one_sentence(  # noqa: PLR0917 - a row of the table each
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    install: Callable[[Path], None],
    deadline: float,
    message: str,
    hint: str,
) -> None:
    """An nft that hangs is ended, a refusal is repeated, both with a remedy."""
    install(tmp_path)
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")

    with pytest.raises(KernelError, match=message) as caught:
        await Nft(deadline=deadline).load(TEXT)

    assert hint in caught.value.hint


async def test_nft_is_not_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The sentence says what to install, or what to set."""
    monkeypatch.setattr("ipsec_agent.host.program.PLACES", "/nowhere")
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(KernelError, match="the program nft is not installed") as caught:
        await Nft().load(TEXT)

    assert caught.value.hint == "apt install nftables, or set agent.guard: none"


TABLE_FLAGS, OWNED, LASTING = 2, 2, 4
"""NFTA_TABLE_FLAGS, NFT_TABLE_F_OWNER and NFT_TABLE_F_PERSIST."""


def own(owner: Channel, flags: int) -> None:
    """Take the guard's name for a table of one's own, which lets everything pass."""
    name = attribute_text(TABLE, "ipsec_agent")
    try:
        owner.perform(
            [(NEW_TABLE, CREATE, name + attribute(TABLE_FLAGS, struct.pack("!I", flags)))]
        )
    except OSError as error:
        if error.errno != errno.EOPNOTSUPP:
            raise
        pytest.skip("before Linux 6.9 no table outlasts its owner")


async def test_a_table_that_outlasts_its_owner() -> None:
    """nft cannot name it again, and so not replace it as any other; the guard takes its place."""
    nft = Nft()
    for image_known in (False, True):
        with Channel() as owner:
            own(owner, OWNED | LASTING)
        await asyncio.sleep(0.1 * SCALE)
        with pytest.raises(AssertionError, match="not supported"):
            run("nft", "-f", "-", text=TEXT)

        await nft.check(TEXT)
        await nft.load(TEXT)

        found = await nft.read()
        assert found is not None, image_known
        assert found.mark == mark(TEXT)
        assert not send_udp(A, A4, B4)
        await nft.delete()
        assert await nft.read() is None

    with Channel() as owner:
        own(owner, OWNED | LASTING)
    await asyncio.sleep(0.1 * SCALE)
    await nft.delete()
    assert await nft.read() is None


async def test_a_table_that_a_program_owns() -> None:
    """While it runs nobody else can change the table: the program is named."""
    nft = Nft()
    with Channel() as owner:
        own(owner, OWNED)

        for attempt in (nft.load(TEXT), nft.delete()):
            with pytest.raises(KernelError) as refused:
                await attempt
            assert refused.value.code == errno.EPERM
            assert f"pid {os.getpid()} (" in refused.value.message
            assert "owns the table inet ipsec_agent" in refused.value.message
            assert f"(`kill {os.getpid()}`)" in refused.value.hint

    await asyncio.sleep(0.1 * SCALE)
    await nft.load(TEXT)
    assert not send_udp(A, A4, B4)


def descriptors() -> set[str]:
    """What this process has open."""
    return set(os.listdir("/proc/self/fd"))  # noqa: PTH208 - numbers


async def test_a_reading_that_is_cancelled_before_it_begins() -> None:
    """It leaves no socket behind, however busy the threads are."""
    loop, gate = asyncio.get_running_loop(), threading.Event()
    loop.set_default_executor(ThreadPoolExecutor(1))
    busy = asyncio.create_task(asyncio.to_thread(gate.wait, 20))
    await asyncio.sleep(0.1)
    before = descriptors()
    reading = asyncio.create_task(Nft().read())
    await asyncio.sleep(0.1)
    assert len(descriptors()) == len(before) + 1

    reading.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await reading

    assert descriptors() == before
    gate.set()
    await busy
