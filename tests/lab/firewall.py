"""A firewall of somebody else's on a VM: it drops what it is told to, and tells nobody."""

import contextlib
import subprocess
from collections.abc import Iterator

CHAINS = (
    "chain before { type filter hook prerouting priority -450; }\n"
    "chain after { type filter hook postrouting priority 450; }\n"
)


@contextlib.contextmanager
def rules(netns: str, *lines: str) -> Iterator[None]:
    """Rules of nft, each after the name of its chain: before is what comes, after what goes."""

    def nft(text: str) -> None:
        subprocess.run(
            ["ip", "netns", "exec", netns, "nft", "-f", "-"],
            input=text,
            text=True,
            check=True,
            timeout=60,
        )

    nft(
        f"table ip firewall {{ {CHAINS} }}\n"
        + "\n".join(f"add rule ip firewall {it}" for it in lines)
    )
    try:
        yield
    finally:
        nft("delete table ip firewall")
