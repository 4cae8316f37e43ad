"""How long the guard's table takes to be read and put back, beside nft, which does the same.

`python -m bench.guard`, as root: in a network namespace of its own. Each line is a figure in
milliseconds: the median of all times that it was measured.
"""

import asyncio
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable
from ipaddress import ip_address, ip_network

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import PEERS_COUNTED, ruleset
from ipsec_agent.core.model import GUARD_TABLE
from ipsec_agent.core.promise import Promise
from ipsec_agent.host.nft import Nft
from ipsec_agent.host.nft_trial import CLONE_NEWNET

LISTS = {
    "2 subnets": Promise((ip_network("10.0.0.0/16"), ip_network("fd00::/64")), ()),
    "400 subnets": Promise(tuple(ip_network(f"10.0.{n}.{n % 2 * 128}/25") for n in range(200))
    + tuple(ip_network(f"10.1.{n}.{n % 2 * 128}/25") for n in range(200)), ()),
}  # fmt: skip
HUGE = 300_000
TIMES = 20


def main() -> None:
    """Print the figures."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        sys.exit(f"bench: a network namespace: {os.strerror(ctypes.get_errno())}")
    for name, promise in LISTS.items():
        text = ruleset(Guard(promise))
        asyncio.run(_figures(name, text))
        _nft(_filled("inet", GUARD_TABLE, "clear_in4", PEERS_COUNTED))
        asyncio.run(_figures(f"{name}, {PEERS_COUNTED} peers counted", text, altered=False))
        _nft(f"delete table inet {GUARD_TABLE}\n")
    text = ruleset(Guard(LISTS["2 subnets"]))
    _nft("table ip huge { set s { type ipv4_addr; }; }\n" + _filled("ip", "huge", "s", HUGE))
    asyncio.run(_figures(f"beside {HUGE} foreign elements", text))


async def _figures(name: str, text: str, *, altered: bool = True) -> None:
    nft = Nft()
    if altered:
        await nft.load(text)
        await _figure(f"{name}: put back", lambda: nft.load(text))
        await _figure(f"{name}: loaded by nft -f", lambda: _program(text, "-f", "-"))
    await _figure(f"{name}: read", nft.read)
    listing = ("-j", "list", "table", "inet", GUARD_TABLE)
    await _figure(f"{name}: listed by nft -j", lambda: _program("", *listing))


async def _figure(name: str, measured: Callable[[], Awaitable[object]]) -> None:
    await measured()
    took: list[float] = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await measured()
        took.append((time.perf_counter() - began) * 1000)
    sys.stdout.write(json.dumps({"figure": name, "ms": round(statistics.median(took), 1)}) + "\n")
    sys.stdout.flush()


async def _program(text: str, *arguments: str) -> None:
    process = await asyncio.create_subprocess_exec(
        *("nft", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.DEVNULL,
    )
    await process.communicate(text.encode())


def _filled(family: str, table: str, name: str, count: int) -> str:
    first = int(ip_address("11.0.0.0"))
    elements = ", ".join(str(ip_address(first + number)) for number in range(count))
    return f"add element {family} {table} {name} {{ {elements} }}\n"


def _nft(text: str) -> None:
    subprocess.run(("nft", "-f", "-"), input=text, text=True, check=True)  # noqa: S607 - as root


if __name__ == "__main__":
    main()
