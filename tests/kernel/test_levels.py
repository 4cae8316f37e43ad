"""The level of a real kernel's trap: what is changed, what stays, and what passes then."""

import os
import re
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from msgspec.structs import replace

from ipsec_agent.host.xfrm import open_xfrm
from tests.kernel.conftest import Run

pytestmark = pytest.mark.kernel

TRAPS = (
    "src 10.0.0.1/32 dst 10.0.0.0/24 dir out priority 371328",
    "src 10.0.0.0/24 dst 10.0.0.1/32 dir in priority 371328",
    "src fd00::1/128 dst fd00::/64 dir out priority 301696",
)
TEMPLATE = "tmpl src {any} dst {any} proto esp mode transport reqid 4000000000"


def traps(namespace: Run, level: str) -> None:
    """Add the traps as ip does."""
    for line in TRAPS:
        template = TEMPLATE.format(any="::" if "fd00" in line else "0.0.0.0")
        namespace("ip", *f"xfrm policy add {line} {template} level {level}".split())


def listed(namespace: Run) -> list[str]:
    """The policies as ip lists them, without what differs from one to the next."""
    shown = namespace("ip", "-s", "xfrm", "policy")
    told = re.sub(r"index \d+|(add|use) 20[^\n]*", "", shown)
    return sorted(re.split(r"^(?=src )", told, flags=re.MULTILINE))


async def test_as_ip_makes_it(namespace: Run) -> None:
    """Byte for byte what ip makes, in the place of the one that was there, and back."""
    traps(namespace, "required")
    before = listed(namespace)
    async with open_xfrm() as xfrm:
        found = await xfrm.policies()
        for policy in found:
            await xfrm.set_level(policy, optional=True)
        loosened = await xfrm.policies()
        as_made = listed(namespace)
        for policy in loosened:
            await xfrm.set_level(policy, optional=False)
        again = await xfrm.policies()

    # When each was made is told in whole seconds, of which one may have passed meanwhile.
    assert sorted((replace(policy, added=0) for policy in loosened), key=str) == sorted(
        (replace(policy, esp=False, optional=True, added=0) for policy in found), key=str
    )
    assert listed(namespace) == before
    assert {policy.index for policy in again} == {policy.index for policy in found}
    namespace("ip", "xfrm", "policy", "flush")
    traps(namespace, "use")
    assert listed(namespace) == as_made


@contextmanager
def peer(namespace: Run, name: str) -> Iterator[None]:
    """A VM without IPsec, on the other end of a link."""
    namespace("ip", "netns", "add", name)
    try:
        namespace("ip", "link", "add", "eth0", "type", "veth", "peer", "eth0", "netns", name)
        for where, own in (((), "10.0.0.1"), (("-n", name), "10.0.0.2")):
            namespace("ip", *where, "link", "set", "lo", "up")
            namespace("ip", *where, "link", "set", "eth0", "up")
            namespace("ip", *where, "addr", "add", f"{own}/24", "dev", "eth0")
        yield
    finally:
        subprocess.run(["ip", "netns", "del", name], check=True, timeout=10)


async def test_what_passes(namespace: Run) -> None:
    """With a peer without IPsec nothing passes while ESP is required, and all while it is not."""
    ping = ("ping", "-n", "-q", "-c", "2", "-i", "0.2", "-W", "1", "10.0.0.2")
    with peer(namespace, f"levels-{os.getpid()}"):
        traps(namespace, "required")
        async with open_xfrm() as xfrm:
            for optional in (False, True, False):
                for policy in await xfrm.policies():
                    await xfrm.set_level(policy, optional=optional)
                shown = namespace("sh", "-c", " ".join(ping) + " || true")
                assert ("2 received" in shown) is optional, shown
