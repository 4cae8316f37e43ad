"""Policies and SAs of a real kernel, in a network namespace of the test's own.

ESP SAs with keys need a kernel with ESP: the tests in the guest cover them. Here stand larval SAs
and SPIs reserved by allocspi, which every XFRM kernel has.
"""

import asyncio
import errno
import os
import socket
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from ipaddress import ip_address, ip_network
from pathlib import Path

import pytest
from msgspec.structs import replace

from ipsec_agent.core.model import Direction, PolicySelector
from ipsec_agent.core.observed import Policy
from ipsec_agent.errors import KernelError
from ipsec_agent.host import own_time
from ipsec_agent.host.xfrm import Xfrm, open_xfrm
from ipsec_agent.host.xfrm_stat import stats
from ipsec_agent.host.xfrm_wire import XfrmWire
from tests.kernel.conftest import Run

pytestmark = pytest.mark.kernel

NETLINK_XFRM = 6
GROUP_ACQUIRE = 1
SOON = 5.0
QUIET = 0.3
MANY = 10_000

RESERVE = "xfrm state allocspi src 10.0.0.1 dst 10.0.0.2 proto esp reqid 9 mode transport"


class Bell:
    """Counts how often it was rung."""

    def __init__(self) -> None:
        self._event = asyncio.Event()
        self.count = 0

    def ring(self) -> None:
        """Be rung."""
        self.count += 1
        self._event.set()

    async def heard(self) -> None:
        """Wait until rung, and be silent again."""
        async with asyncio.timeout(SOON):
            await self._event.wait()
        self._event.clear()


@asynccontextmanager
async def watching(xfrm: Xfrm) -> AsyncIterator[Bell]:
    """A bell that the watch rings; the first ring, at the start, is over."""
    bell = Bell()
    task = asyncio.create_task(xfrm.watch(bell.ring))
    try:
        await bell.heard()
        yield bell
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def ip(namespace: Run, *lines: str) -> None:
    """Have ip perform some lines."""
    namespace("ip", "-batch", "-", stdin="\n".join(lines) + "\n")


def selector(direction: Direction, source: str, destination: str, *rest: int) -> PolicySelector:
    """A selector from text."""
    return PolicySelector(direction, ip_network(source), ip_network(destination), *rest)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            "src 10.0.0.1/32 dst 10.0.0.0/24 dir out priority 371328 "
            "tmpl proto esp mode transport reqid 5",
            Policy(
                selector(Direction.OUT, "10.0.0.1/32", "10.0.0.0/24"),
                371328,
                esp=True,
                blocks=False,
                reqid=5,
            ),
        ),
        (
            "src fd00::/64 dst fd00::1/128 dir in priority 7 tmpl proto esp mode transport reqid 6",
            Policy(
                selector(Direction.IN, "fd00::/64", "fd00::1/128"),
                7,
                esp=True,
                blocks=False,
                reqid=6,
            ),
        ),
        (
            "src 10.0.0.1/32 dst 10.0.0.0/24 dir out priority 7 "
            "tmpl proto esp mode transport reqid 5 level use",
            Policy(
                selector(Direction.OUT, "10.0.0.1/32", "10.0.0.0/24"),
                7,
                esp=False,
                blocks=False,
                optional=True,
                reqid=5,
            ),
        ),
        (
            "src 10.0.0.1/32 dst 10.0.0.0/24 dir out priority 7 tmpl proto esp mode tunnel",
            Policy(
                selector(Direction.OUT, "10.0.0.1/32", "10.0.0.0/24"),
                7,
                esp=False,
                blocks=False,
                tunnel=ip_address("0.0.0.0"),
            ),
        ),
        (
            "src 10.1.0.0/16 dst 0.0.0.0/0 dir fwd priority 9 action block",
            Policy(selector(Direction.FWD, "10.1.0.0/16", "0.0.0.0/0"), 9, esp=False, blocks=True),
        ),
        (
            "src ::/0 dst ::/0 proto ipv6-icmp type 135 dir in priority 3",
            Policy(selector(Direction.IN, "::/0", "::/0", 58, 135, 0), 3, esp=False, blocks=False),
        ),
        (
            "src 10.0.0.1/32 dst 10.0.0.2/32 proto udp sport 53 dport 99 dir out priority 3",
            Policy(
                selector(Direction.OUT, "10.0.0.1/32", "10.0.0.2/32", 17, 53, 99),
                3,
                esp=False,
                blocks=False,
            ),
        ),
    ],
)
async def test_policies_are_read(namespace: Run, line: str, expected: Policy) -> None:
    """What ip adds is what is read."""
    ip(namespace, f"xfrm policy add {line}")

    async with open_xfrm() as xfrm:
        (found,) = await xfrm.policies()

    assert found.index > 0
    assert abs(time.time() - found.added) < 60
    assert expected == replace(found, index=0, added=0)


async def test_empty(namespace: Run) -> None:
    """A new namespace has neither policies nor SAs."""
    async with open_xfrm() as xfrm:
        assert await xfrm.policies() == ()
        assert await xfrm.states() == ()


async def test_socket_policies_are_left_out(namespace: Run) -> None:
    """The bypass that an IKE daemon gives its own socket is no policy of the VM."""
    bypass = bytearray(168)
    bypass[40:42] = socket.AF_INET.to_bytes(2, "little")
    bypass[56:120] = b"\xff" * 64
    bypass[160] = Direction.OUT
    ip_xfrm_policy = 17  # linux/in.h
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as own:
        own.setsockopt(socket.IPPROTO_IP, ip_xfrm_policy, bytes(bypass))
        shown = namespace("ip", "xfrm", "policy")

        async with open_xfrm() as xfrm:
            found = await xfrm.policies()

    assert "socket out" in shown
    assert found == ()


async def test_delete_by_selector(namespace: Run) -> None:
    """Of two policies the named one goes."""
    ip(
        namespace,
        "xfrm policy add src 10.0.0.1/32 dst 10.0.0.0/24 dir out",
        "xfrm policy add src 10.0.0.1/32 dst 10.0.0.0/24 proto udp sport 53 dir out",
    )
    async with open_xfrm() as xfrm:
        await xfrm.delete_policy(selector(Direction.OUT, "10.0.0.1/32", "10.0.0.0/24", 17, 53))
        (left,) = await xfrm.policies()

    assert left.selector == selector(Direction.OUT, "10.0.0.1/32", "10.0.0.0/24")


async def test_delete_what_was_read(namespace: Run) -> None:
    """A policy as read goes, also where more than its selector makes up its identity."""
    ip(
        namespace,
        "xfrm policy add src 10.0.0.1/32 dst 10.0.0.0/24 proto icmp code 3 dir out",
        "xfrm policy add src fd00::1/128 dst fd00::/64 dir in",
    )
    async with open_xfrm() as xfrm:
        for policy in await xfrm.policies():
            await xfrm.delete_policy(policy)

        assert await xfrm.policies() == ()


async def test_delete_what_is_not_there(namespace: Run) -> None:
    """Deleting nothing is an error with its errno and a hint, and the next request works."""
    async with open_xfrm() as xfrm:
        with pytest.raises(KernelError, match="deleting the policy 10") as policy_error:
            await xfrm.delete_policy(selector(Direction.OUT, "10.0.0.1/32", "10.0.0.0/24"))
        with pytest.raises(KernelError, match="SPI 00001000") as state_error:
            await xfrm.delete_state(ip_address("10.0.0.1"), ip_address("10.0.0.2"), 0x1000)

        assert await xfrm.policies() == ()

    assert (policy_error.value.code, state_error.value.code) == (errno.ENOENT, errno.ESRCH)
    assert "gone" in policy_error.value.hint


async def test_states(namespace: Run) -> None:
    """A reserved SPI is an SA that can be read and deleted."""
    ip(namespace, f"{RESERVE} min 0x1000 max 0x1000")
    async with open_xfrm() as xfrm:
        (found,) = await xfrm.states()
        await xfrm.delete_state(found.source, found.destination, found.spi)

        assert await xfrm.states() == ()

    assert (str(found.source), str(found.destination)) == ("10.0.0.1", "10.0.0.2")
    assert (found.spi, found.reqid, found.encapsulated) == (0x1000, 9, False)


async def test_an_sa_with_a_mark(namespace: Run) -> None:
    """It is not taken for the one of the same destination and SPI; nor is it deleted for it."""
    ip(namespace, f"{RESERVE} min 0x1000 max 0x1000 mark 7 mask 255")
    async with open_xfrm() as xfrm:
        assert await xfrm.states() == ()

        ip(namespace, f"{RESERVE} min 0x1001 max 0x1001")
        (found,) = await xfrm.states()
        with pytest.raises(KernelError):
            await xfrm.delete_state(found.source, found.destination, 0x1000)
        await xfrm.delete_state(found.source, found.destination, found.spi)

    assert found.spi == 0x1001
    assert "mark 0x7/0xff" in namespace("ip", "xfrm", "state")


async def test_states_ipv6(namespace: Run) -> None:
    """The family of an SA to delete is that of its addresses."""
    line = "xfrm state allocspi src fd00::1 dst fd00::2 proto esp reqid 9 mode transport"
    ip(namespace, f"{line} min 0xc0001000 max 0xc0001000")
    async with open_xfrm() as xfrm:
        (found,) = await xfrm.states()
        await xfrm.delete_state(found.source, found.destination, found.spi)

        assert await xfrm.states() == ()

    assert (str(found.source), str(found.destination)) == ("fd00::1", "fd00::2")
    assert found.spi == 0xC0001000


async def test_larval_state(namespace: Run) -> None:
    """A packet that waits for IKE leaves an SA with SPI 0."""
    trap(namespace)
    with (
        socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, NETLINK_XFRM) as ike,
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
    ):
        # Without anybody to ask for SAs the kernel makes no larval one.
        ike.bind((0, 1 << (GROUP_ACQUIRE - 1)))
        sender.setblocking(False)
        sender.bind(("10.5.0.1", 0))
        sender.sendto(b"x", ("10.6.0.3", 9))

        async with open_xfrm() as xfrm:
            (found,) = await xfrm.states()

    assert (found.spi, found.reqid, str(found.destination)) == (0, 1, "10.6.0.3")
    assert abs(time.time() - found.added) < 60


def trap(namespace: Run) -> None:
    """A link, and a trap on what it sends to 10.6.0.0/24."""
    ip(
        namespace,
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "addr add 10.5.0.1/24 dev v0",
        "route add 10.6.0.0/24 dev v0",
        "xfrm policy add src 10.5.0.1/32 dst 10.6.0.0/24 dir out "
        "tmpl proto esp mode transport reqid 1",
    )


POLICY = "src 10.0.0.1/32 dst 10.0.0.0/24 dir out"


@pytest.mark.parametrize(
    "change",
    [
        "xfrm policy add src 10.9.9.9/32 dst 10.0.0.0/24 dir out",
        f"xfrm policy update {POLICY} priority 77",
        f"xfrm policy delete {POLICY}",
        "xfrm policy flush",
        "xfrm state delete src 10.0.0.1 dst 10.0.0.2 proto esp spi 0x1000",
        "xfrm state flush",
    ],
)
async def test_watch_wakes(namespace: Run, change: str) -> None:
    """Each change of a policy, and each end of an SA, wakes."""
    ip(namespace, f"xfrm policy add {POLICY}", f"{RESERVE} min 0x1000 max 0x1000")
    async with open_xfrm() as xfrm, watching(xfrm) as bell:
        assert bell.count == 1
        await asyncio.to_thread(ip, namespace, change)
        await bell.heard()


async def test_watch_sleeps_through_larval_states(namespace: Run) -> None:
    """SAs that come, and larval ones that go, are no reason to look."""
    async with open_xfrm() as xfrm, watching(xfrm) as bell:
        await asyncio.to_thread(ip, namespace, f"{RESERVE} min 0x1000 max 0x1000")
        await asyncio.sleep(QUIET)

        assert bell.count == 1


async def test_watch_survives_lost_events(namespace: Run) -> None:
    """After an overflow the watch wakes by itself, and hears what comes then."""
    async with open_xfrm() as xfrm, watching(xfrm) as bell:
        # Blocks the loop, so that the socket's buffer overflows: 1 MiB at most.
        ip(namespace, *many_policies(MANY))
        ip(namespace, "xfrm policy flush", *many_policies(MANY))
        async with asyncio.timeout(SOON * 4):
            # The overflow is read last, after what the buffer held; a new start rings, too.
            before = -1
            while before != bell.count:
                before = bell.count
                await asyncio.sleep(QUIET)
        await bell.heard()

        await asyncio.to_thread(ip, namespace, "xfrm policy flush")
        await bell.heard()


async def test_nothing_read_is_an_event(namespace: Run) -> None:
    """Reading changes nothing: whoever listens sleeps on."""
    ip(namespace, f"xfrm policy add {POLICY}")
    async with open_xfrm() as xfrm, watching(xfrm) as bell:
        await xfrm.policies()
        await xfrm.states()
        await asyncio.sleep(QUIET)

        assert bell.count == 1


async def test_requests_at_the_same_time(namespace: Run) -> None:
    """Policies and SAs may be asked for at once: one socket, one request at a time."""
    ip(namespace, f"xfrm policy add {POLICY}", f"{RESERVE} min 0x1000 max 0x1000")
    async with open_xfrm() as xfrm:
        found = await asyncio.gather(*(xfrm.policies() for _ in range(5)), xfrm.states())

    assert [len(each) for each in found] == [1] * 6


def many_policies(count: int) -> list[str]:
    """Lines for ip that add so many policies."""
    return [
        f"xfrm policy add src 10.0.0.1/32 dst 11.{number >> 16}.{number >> 8 & 255}."
        f"{number & 255}/32 dir out tmpl proto esp mode transport reqid 1"
        for number in range(count)
    ]


async def test_ten_thousand_policies(
    namespace: Run, record_property: Callable[[str, object], None]
) -> None:
    """A dump of many parts is complete, and within the deadline."""
    ip(namespace, *many_policies(MANY))
    async with open_xfrm() as xfrm:
        start = time.perf_counter()
        found = await xfrm.policies()
        took = time.perf_counter() - start

    record_property("seconds", took)
    print(f"{MANY} policies in {took:.2f} s")  # noqa: T201 - shown with -s
    assert len({policy.selector for policy in found}) == MANY
    assert all(policy.esp for policy in found)


async def test_deadline(namespace: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    """A request that takes too long ends with a KernelError; the next one is served."""
    monkeypatch.setattr(own_time, "GRACE", 0.0)
    ip(namespace, *many_policies(2000))
    async with open_xfrm(deadline=0.0) as xfrm:
        with pytest.raises(KernelError) as caught:
            await xfrm.policies()
        xfrm._wire._deadline = SOON

        assert len(await xfrm.policies()) == 2000

    assert caught.value.code == errno.ETIMEDOUT


async def test_cancelled_request(namespace: Run) -> None:
    """After a cancelled request the next one gets its own answer."""
    ip(namespace, *many_policies(2000))
    async with open_xfrm() as xfrm:
        task = asyncio.create_task(xfrm.policies())
        # It has begun, and has not read its second part.
        for _ in range(3):
            await asyncio.sleep(0)
        assert task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

        assert len(await xfrm.policies()) == 2000


async def test_without_privilege(namespace: Run) -> None:
    """Nobody may read or listen, and is told what to do."""
    os.seteuid(65534)
    try:
        async with open_xfrm() as xfrm:
            with pytest.raises(KernelError) as reading:
                await xfrm.policies()
            with pytest.raises(KernelError) as listening:
                await xfrm.watch(lambda: None)
    finally:
        os.seteuid(0)

    for caught in (reading, listening):
        assert caught.value.code == errno.EPERM
        assert "run as root" in caught.value.hint


async def test_kernel_without_xfrm(namespace: Run) -> None:
    """A netlink family that the kernel does not know is named as what it is."""

    def open_unknown() -> socket.socket:
        raise OSError(errno.EPROTONOSUPPORT, os.strerror(errno.EPROTONOSUPPORT))

    with pytest.raises(KernelError) as caught:
        await Xfrm(XfrmWire(open_unknown)).policies()

    assert caught.value.code == errno.EPROTONOSUPPORT
    assert "run `modprobe xfrm_user`" in caught.value.hint


def test_stats(namespace: Run) -> None:
    """The counters are those of the namespace: a packet against a block policy counts there."""
    ip(
        namespace,
        "addr add 10.5.0.1/24 dev lo",
        "link add v0 type veth peer name v1",
        "link set v0 up",
        "link set v1 up",
        "route add 10.6.0.0/24 dev v0",
        "xfrm policy add src 10.5.0.1/32 dst 10.6.0.0/24 dir out action block",
    )
    before = stats()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
        sender.bind(("10.5.0.1", 0))
        with pytest.raises(PermissionError):
            sender.sendto(b"x", ("10.6.0.3", 9))

    assert before["XfrmOutPolBlock"] == 0
    assert stats()["XfrmOutPolBlock"] == 1


def test_stats_missing(tmp_path: Path) -> None:
    """A kernel that does not count says so."""
    with pytest.raises(KernelError, match="cannot read"):
        stats(tmp_path / "xfrm_stat")
