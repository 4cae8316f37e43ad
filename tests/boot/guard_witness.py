"""Reads the guard's table again and again until SIGTERM, and prints what it saw, as JSON.

Runs with this machine's Python in a container's network namespace: what changes in the container
changes nothing here.
"""

import asyncio
import json
import signal
import sys

from ipsec_agent.host.nft_image import MOST
from ipsec_agent.host.nft_tables import read_guard

PAUSE = 0.002
"""Seconds between two looks."""


async def main() -> None:
    """Look."""
    end = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, end.set)
    rules = []
    while not end.is_set():
        image = await read_guard(MOST)
        rules.append(len(image.rules) if image else 0)
        await asyncio.sleep(PAUSE)
    found = {"looks": len(rules), "without": rules.count(0), "fewest_rules": min(rules)}
    sys.stdout.write(json.dumps(found))


if __name__ == "__main__":
    asyncio.run(main())
