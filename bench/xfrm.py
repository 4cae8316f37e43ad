"""How long the kernel's SAs and policies take to be read, beside ip(8), which does the same.

`python -m bench.xfrm`, as root, where the kernel has ESP: in a network namespace of its own. The
SAs and policies are those that charon makes with each peer, without charon. Each line is a figure
in milliseconds: the median of all times that it was measured. `again` is where what the kernel
lists is the same as before, as of most policies in most passes.
"""

import asyncio
import ctypes
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Awaitable, Callable, Iterator
from functools import partial
from ipaddress import IPv4Address

from ipsec_agent.host.nft_trial import CLONE_NEWNET
from ipsec_agent.host.xfrm import open_xfrm

PEERS = (100, 1000, 2000)
TIMES = 9
OWN, FIRST_PEER = "10.0.0.5", IPv4Address("10.0.1.0")
ALGORITHM = "aead rfc4106(gcm(aes)) 0x0102030405060708090a0b0c0d0e0f1011121314 128"


def main() -> None:
    """Print the figures."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        sys.exit(f"bench: a network namespace: {os.strerror(ctypes.get_errno())}")
    for peers in PEERS:
        _batch(["xfrm state flush", "xfrm policy flush", *states(peers), *policies(peers)])
        asyncio.run(_figures(peers))


def states(peers: int) -> Iterator[str]:
    """The lines of ip(8) that add both SAs of each peer."""
    for number in range(peers):
        peer = FIRST_PEER + number
        for spi, source, destination in ((0xC0000000, peer, OWN), (0xD0000000, OWN, peer)):
            yield (
                f"xfrm state add src {source} dst {destination} proto esp spi {spi + number:#x}"
                f" reqid {number + 1} mode transport replay-window 0 {ALGORITHM}"
            )


def policies(peers: int) -> Iterator[str]:
    """The lines of ip(8) that add what charon adds for them."""
    for number in range(peers):
        peer = FIRST_PEER + number
        for way, source, destination in (("out", OWN, peer), ("in", peer, OWN)):
            yield (
                f"xfrm policy add src {source}/32 dst {destination}/32 dir {way} priority 367231"
                f" tmpl src 0.0.0.0 dst 0.0.0.0 proto esp reqid {number + 1} mode transport"
            )


async def _figures(peers: int) -> None:
    for name, word in (("states", "state"), ("policies", "policy")):
        anchor = await _median(partial(_ip, word))
        async with open_xfrm() as xfrm:
            read: Callable[[], Awaitable[object]] = getattr(xfrm, name)
            began = time.perf_counter()
            await read()
            first = round((time.perf_counter() - began) * 1000, 1)
            again = await _median(read)
        line = {"figure": f"{name} of {peers} peers read", "ms": first, "again": again}
        line |= {"ip": anchor, "ratio": round(first / anchor, 2)}
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


async def _median(measured: Callable[[], Awaitable[object]]) -> float:
    """Milliseconds."""
    took = []
    for _ in range(TIMES):
        began = time.perf_counter()
        await measured()
        took.append((time.perf_counter() - began) * 1000)
    return round(statistics.median(took), 1)


async def _ip(what: str) -> None:
    program = await asyncio.create_subprocess_exec(
        *("ip", "xfrm", what), stdout=asyncio.subprocess.DEVNULL
    )
    if await program.wait():
        raise RuntimeError(f"ip xfrm {what} fails")


def _batch(lines: list[str]) -> None:
    subprocess.run(("ip", "-batch", "-"), input="\n".join(lines), text=True, check=True)  # noqa: S607 - as root


if __name__ == "__main__":
    main()
