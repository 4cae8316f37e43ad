"""The guard is put back in the kernel's own language: it is the same table, and no program runs."""

import asyncio
import logging
import re
import statistics
import time
from collections.abc import Iterator, Sequence
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.closed_table import closed_table
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.model import LinkId
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.nft_wire import Channel, Message
from ipsec_agent.host.program import find_program
from tests.kernel.guard_lab import A4, B4, GUARD, SCALE, A, link, namespaces, run, send_udp
from tests.lab.namespaces import inside

pytestmark = pytest.mark.kernel

TEXT = ruleset(GUARD)
FIGURES = logging.getLogger(__name__)

ALTERATIONS = (
    "delete table inet ipsec_agent",
    "flush table inet ipsec_agent",
    "flush chain inet ipsec_agent out4",
    "insert rule inet ipsec_agent out accept",
    "flush set inet ipsec_agent outside4",
    "add element inet ipsec_agent outside4 { 10.77.0.2 }",
    "delete element inet ipsec_agent outside4 { 10.77.9.0-10.77.9.255 }",
    "add chain inet ipsec_agent out { policy drop; }",
    "add table inet ipsec_agent { flags dormant; }",
    "add chain inet ipsec_agent other { type filter hook postrouting priority 0; }",
    "add set inet ipsec_agent other { type ipv4_addr; }",
)


@pytest.fixture(autouse=True)
def lab() -> Iterator[None]:
    """A fresh lab for each test, and the test itself inside of VM A."""
    with namespaces(), inside(A):
        yield


def listing() -> str:
    """What nft says of the table, without handles, counters, and what a link's own packets left."""
    text = run("nft", "list", "table", "inet", "ipsec_agent")
    text = re.sub(r"\n\t\telements = \{[^}]* expires [^}]*\}", "", text)
    return re.sub(r"packets \d+ bytes \d+", "", text)


async def known(nft: Nft) -> str:
    """The mark of the table that there is, "" of one that is not known."""
    found = await nft.read()
    return found.mark if found else ""


def without_nft(patch: pytest.MonkeyPatch) -> None:
    """No program nft is found."""
    patch.setattr("ipsec_agent.host.program.PLACES", "/nowhere")
    patch.setenv("PATH", "/nowhere")


@pytest.mark.parametrize("change", ALTERATIONS)
async def test_it_is_what_nft_had_loaded(change: str) -> None:
    """To the last rule, as nft lists it, with the exempt links of now; and it holds."""
    nft, exempt = Nft(), (link(A, "ac0"), LinkId(4711, "gone"))
    await nft.load(TEXT, exempt, [4789])
    loaded = listing()
    run("nft", change)
    assert await known(nft) == ""

    with pytest.MonkeyPatch.context() as patch:
        without_nft(patch)
        await nft.load(TEXT, exempt, [4789])

        assert await known(nft) == mark(TEXT)
    assert listing() == loaded
    assert not send_udp(A, A4, B4)
    with pytest.MonkeyPatch.context() as patch:
        without_nft(patch)
        await nft.load(TEXT)
        found = await nft.read()
        assert found is not None
        assert (found.exempt, found.overlay_ports, found.dropped_out) == ((), (), 0)
        many = tuple(LinkId(number, f"veth{number}") for number in range(5000, 15000))
        await nft.load(TEXT, many)
        found = await nft.read()
        assert found is not None
        assert (found.exempt, found.mark) == (many, mark(TEXT))
        more = tuple(LinkId(number, f"veth{number}") for number in range(5000, 16000))
        nft.exempt(more)
        found = await nft.read()
        assert found is not None
        assert (found.exempt, found.mark) == (more, mark(TEXT))


SUBNETS = [ip_network(f"10.{n // 250}.{n % 250}.0/24") for n in range(600)]
MANY = Guard(
    Promise(
        (*SUBNETS, ip_network("fd00::/8")),
        tuple(ip_network(f"10.0.{n}.{n}/32") for n in range(250)),
    )
)
TABLES = {
    "many subnets": ruleset(MANY),
    "forced encapsulation": ruleset(replace(GUARD, force_encapsulation=True)),
    "counting only": ruleset(replace(GUARD, enforce=False)),
    "everything": ruleset(Guard(Promise((ip_network("0.0.0.0/0"), ip_network("::/0")), ()))),
    "nothing": ruleset(Guard(Promise((), ()))),
    "closed": closed_table(EssentialAddresses()),
}


@pytest.mark.parametrize("text", TABLES.values(), ids=TABLES)
async def test_tables_of_each_kind(text: str) -> None:
    """Each is put back as nft had loaded it, and learnt as it is."""
    nft = Nft()
    await nft.load(text)
    loaded = listing()
    run("nft", "delete table inet ipsec_agent")

    with pytest.MonkeyPatch.context() as patch:
        without_nft(patch)
        await nft.load(text)

    assert listing() == loaded
    stranger = Nft()
    await stranger.learn(text)
    assert await known(stranger) == mark(text)


async def test_the_next_process_needs_no_program_either(tmp_path: Path) -> None:
    """It takes what it reads for what the memory says, and can put that back."""
    await Nft(tmp_path / "guard.json").load(TEXT)
    nft = Nft(tmp_path / "guard.json")
    assert await known(nft) == mark(TEXT)
    run("nft", "flush chain inet ipsec_agent out4")
    assert await known(nft) == ""

    with pytest.MonkeyPatch.context() as patch:
        without_nft(patch)
        await nft.load(TEXT)

        assert await known(nft) == mark(TEXT)
        with pytest.raises(KernelError, match="the program nft is not installed"):
            await nft.load(ruleset(MANY))


FOREIGN = """
flush ruleset
table inet ipsec_agent {
    set clear_in4 { type inet_service; elements = { 80 }
    }
    chain in { type filter hook input priority 0; udp dport @clear_in4 accept
    }
}
"""


async def test_a_table_that_somebody_made_under_its_name_is_replaced() -> None:
    """Whatever it holds: it is another one, and not a guard that cannot be read."""
    nft = Nft()
    await nft.load(TEXT)
    run("nft", "-f", "-", text=FOREIGN)

    found = await nft.read()
    assert found is not None
    assert (found.mark, found.clear_in) == ("", ())
    await nft.load(TEXT)
    assert await known(nft) == mark(TEXT)


@pytest.mark.parametrize("name", ["exempt", "overlay_ports", "clear_out4", "tunnel4"])
async def test_a_set_that_somebody_has_take_everything(name: str) -> None:
    """A catch-all element opens the guard, and is no reason not to put it back."""
    nft = Nft()
    await nft.load(TEXT)
    run("nft", "add", "element", "inet", "ipsec_agent", name, "{ * }")

    found = await nft.read()
    assert found is not None
    assert found.mark == ""
    await nft.load(TEXT)
    assert await known(nft) == mark(TEXT)


@pytest.mark.parametrize("fault", ["refused", "another"])
async def test_where_it_cannot_be_put_back_nft_loads_it(
    monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    """The kernel refuses a part, or makes something else of it."""
    nft = Nft()
    await nft.load(TEXT)
    assert nft._image is not None
    text, image = nft._image
    assert text == mark(TEXT)
    rules = image.rules
    wrong = (*rules, {**rules[-1], 2: b"absent\0"}) if fault == "refused" else rules
    nft._image = text, replace(image, rules=wrong)
    if fault == "another":
        # Somebody changes it right afterwards.
        perform = Channel.perform

        def altered(channel: Channel, messages: Sequence[Message]) -> None:
            perform(channel, messages)
            run("nft", "insert rule inet ipsec_agent out accept", ns=A)

        monkeypatch.setattr(Channel, "perform", altered)
    run("nft", "flush chain inet ipsec_agent out4")

    await nft.load(TEXT)

    assert await known(nft) == mark(TEXT)


def _wrapped(directory: Path, meanwhile: str) -> None:
    program = directory / "nft"
    real = find_program("nft")
    loaded = f"{real} list table inet ipsec_agent >/dev/null 2>&1"
    # What inherits its output has ended when the agent takes nft for ended.
    after = f"for _ in $(seq 500); do {loaded} && break; sleep 0.02; done; {real} {meanwhile}"
    program.write_text(f'#!/bin/sh\n({after}) &\nexec {real} "$@"\n')
    program.chmod(0o755)


@pytest.mark.parametrize(
    ("meanwhile", "sure"),
    [
        ("insert rule inet ipsec_agent out accept", False),
        ("add table inet other", True),
        ("add table inet other '{ chain c { ip saddr 1.1.1.1 drop; }; }'", True),
    ],
)
async def test_what_somebody_else_changed_meanwhile_is_not_taken_for_ours(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str, *, sure: bool
) -> None:
    """Between a load and the reading of what it made; other tables do not matter."""
    _wrapped(tmp_path, meanwhile)
    nft = Nft()
    with monkeypatch.context() as patch:
        patch.setattr("ipsec_agent.host.nft.find_program", lambda _: str(tmp_path / "nft"))
        await nft.load(TEXT)

    assert await known(nft) == (mark(TEXT) if sure else "")
    await nft.load(TEXT)
    assert await known(nft) == mark(TEXT)


HUGE = 300_000
LIMIT = 0.5
"""Seconds that a repair may take; docs/design.md."""


async def test_foreign_sets_cost_nothing() -> None:
    """Of any size: neither a reading nor a repair asks for them."""
    nft = Nft()
    await nft.load(TEXT)
    alone = await _times(nft)
    elements = ", ".join(f"10.{n >> 16}.{n >> 8 & 255}.{n & 255}" for n in range(HUGE))
    for family in ("ip", "inet"):
        table = f"type ipv4_addr\nelements = {{ {elements} }}\n"
        text = f"table {family} huge {{\nset s {{\n{table}}}\n}}\n"
        await asyncio.to_thread(run, "nft", "-f", "-", ns=A, text=text)

    beside = await _times(nft)

    for what, before, after in zip(("reading", "repair"), alone, beside, strict=True):
        FIGURES.info("%s: %.1f ms, beside %d elements %.1f ms", what, before, HUGE, after)
    assert max(beside) < LIMIT * 1000 * SCALE


async def test_a_set_of_its_own_that_somebody_fills_delays_nothing() -> None:
    """It is told from the guard's, and replaced, though it has more than can be read in time."""
    nft = Nft()
    await nft.load(TEXT)
    first, last = (int(ip_address(text)) for text in ("11.0.0.0", "11.10.0.0"))
    elements = ", ".join(str(ip_address(number)) for number in range(first, last, 2))
    text = f"add element inet ipsec_agent listed4 {{ {elements} }}\n"
    await asyncio.to_thread(run, "nft", "-f", "-", ns=A, text=text)

    begun = time.perf_counter()
    assert await known(nft) == ""
    read = time.perf_counter()
    await nft.load(TEXT)
    done = time.perf_counter()

    assert await known(nft) == mark(TEXT)
    FIGURES.info("read in %.0f ms, repaired in %.0f ms", (read - begun) * 1e3, (done - read) * 1e3)


async def _times(nft: Nft, times: int = 5) -> tuple[float, float]:
    """Milliseconds that a reading takes, and a repair."""
    readings, repairs = [], []
    for _ in range(times):
        run("nft", "flush chain inet ipsec_agent out4")
        begun = time.perf_counter()
        assert await known(nft) == ""
        read = time.perf_counter()
        await nft.load(TEXT)
        repairs.append(time.perf_counter() - read)
        readings.append(read - begun)
        assert await known(nft) == mark(TEXT)
    return statistics.median(readings) * 1000, statistics.median(repairs) * 1000
