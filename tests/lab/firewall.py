"""A firewall of somebody else's on a VM: it drops what it is told to, and tells nobody."""

import contextlib
import subprocess
from collections.abc import Iterator

CHAINS = (
    "chain before { type filter hook prerouting priority -450; }\n"
    "chain after { type filter hook postrouting priority 450; }\n"
)


def _nft(netns: str, text: str) -> None:
    subprocess.run(
        ["ip", "netns", "exec", netns, "nft", "-f", "-"],
        input=text,
        text=True,
        check=True,
        timeout=60,
    )


def replaced(netns: str, *lines: str) -> None:
    """Put other rules in the place of these, all at once."""
    added = "\n".join(f"add rule ip firewall {it}" for it in lines)
    _nft(netns, f"flush table ip firewall\n{added}")


@contextlib.contextmanager
def rules(netns: str, *lines: str) -> Iterator[None]:
    """Rules of nft, each after the name of its chain: before is what comes, after what goes."""
    _nft(
        netns,
        f"table ip firewall {{ {CHAINS} }}\n"
        + "\n".join(f"add rule ip firewall {it}" for it in lines),
    )
    try:
        yield
    finally:
        _nft(netns, "delete table ip firewall")
