"""The guard's tables and everybody's flowtables, read from the kernel, and the guard put back.

Each call works in a thread of its own, since much is read where many peers are counted.
"""

import asyncio
import errno
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from msgspec import Struct

from ipsec_agent.core.model import GUARD_TABLE, LinkId
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.errors import KernelError
from ipsec_agent.host.nft_events import Authors
from ipsec_agent.host.nft_exempt import exemptions
from ipsec_agent.host.nft_image import FIXED, MOST, Image, read_image
from ipsec_agent.host.nft_refusals import NO_NF_TABLES, NOT_ROOT, has_nf_tables
from ipsec_agent.host.nft_table import SETS, dropped, flowtable, guard_table
from ipsec_agent.host.nft_wire import (
    NFPROTO_INET,
    NFPROTO_NETDEV,
    NFPROTO_UNSPEC,
    Channel,
    InterruptedDumpError,
)
from ipsec_agent.host.understood import NOT_UNDERSTOOD, understood

GET_FLOWTABLES = 23
ATTEMPTS = 20

LACKING = (errno.EINVAL, errno.EPROTONOSUPPORT, errno.EAFNOSUPPORT, errno.EOPNOTSUPP)
"""What a kernel without nf_tables answers; linux/netfilter/nfnetlink.c."""

_GUARD = "cannot read the guard's table"
_FLOW_RULES = "cannot read the table that filters flowtables"

T = TypeVar("T")


class Tables(Struct, frozen=True):
    """What was read.

    Attributes:
        guard: without its mark.
        image: of the guard's table.
        flowtables: those of anybody that have links.
        flow_rules: form of the table beside them, None where there is none.
        offloaded: packets that it dropped.
    """

    guard: GuardTable
    image: Image
    flowtables: tuple[str, ...]
    flow_rules: str | None
    offloaded: int


async def read_tables(most: int, last: Tables | None = None) -> Tables | None:
    """All of it, None where there is no guard.

    Args:
        most: elements of each set of the guard that are read.
        last: what was read of this network namespace before.

    Raises:
        KernelError: it cannot be read.
    """
    # Each by a channel of its own, which ends with a set that has too many elements.
    rules = await _reading(_FLOW_RULES, _flow_image)
    before = last.image if last else None
    return await _reading(_GUARD, lambda it: _tables(it, rules, most, before))


async def read_guard(most: int) -> Image | None:
    """The guard's table, None where there is none.

    Args:
        most: elements of each set that are read.

    Raises:
        KernelError: it cannot be read.
    """
    return await _reading(_GUARD, lambda it: guard_image(it, most))


async def read_flow_rules() -> str | None:
    """The form of the table beside flowtables, None where there is none.

    Raises:
        KernelError: it cannot be read.
    """
    rules = await _reading(_FLOW_RULES, _flow_image)
    return rules.form if rules else None


async def put_back(
    image: Image, links: Sequence[LinkId], ports: Sequence[int], authors: Authors, most: int
) -> bool:
    """Replace the guard by what an image was read of; whether it is that again.

    Args:
        links: that are exempt.
        ports: UDP ports of the tunnels among them.
        authors: is told who does it, as the kernel names it: by the thread.
        most: elements of each set that are read afterwards.
    """

    def put(channel: Channel) -> Image | None:
        authors.expect(threading.get_native_id())
        more = exemptions(links, ports) if links or ports else ()
        channel.perform([*image.replacement(), *more])
        return guard_image(channel, most)

    try:
        found = await _in_thread(put)
    except (OSError, *NOT_UNDERSTOOD):
        # nft tries again, and says what is wrong.
        return False
    return found is not None and found.form == image.form


def guard_image(channel: Channel, most: int = MOST, before: Image | None = None) -> Image | None:
    """The guard's table, None where there is none.

    Args:
        most: elements of each set that are read.
        before: an earlier image of it.

    Raises:
        OSError: it cannot be read.
    """
    return read_image(channel, NFPROTO_INET, GUARD_TABLE, SETS, most, before=before)


def _tables(
    channel: Channel, rules: Image | None, most: int = MOST, before: Image | None = None
) -> Tables | None:
    flowtables = _flowtables(channel)
    image = guard_image(channel, most, before)
    if image is None:
        return None
    return Tables(
        guard=_guard(image),
        image=image,
        flowtables=flowtables,
        flow_rules=rules.form if rules else None,
        offloaded=dropped(rules) if rules else 0,
    )


def _guard(image: Image) -> GuardTable:
    try:
        return guard_table(image, dict(socket.if_nameindex()))
    except NOT_UNDERSTOOD:
        # Somebody altered it, who must not keep the agent from replacing it.
        return GuardTable(form="")


def _flow_image(channel: Channel) -> Image | None:
    return read_image(channel, NFPROTO_NETDEV, GUARD_TABLE, FIXED)


def _flowtables(channel: Channel) -> tuple[str, ...]:
    for _ in range(ATTEMPTS):
        try:
            listed = list(channel.ask(GET_FLOWTABLES, b"", NFPROTO_UNSPEC, dump=True))
        except InterruptedDumpError:
            continue
        return tuple(filter(None, (flowtable(family, payload) for family, payload in listed)))
    raise TimeoutError("the flowtables change all the time")


async def _reading(doing: str, read: Callable[[Channel], T]) -> T:
    with _told(doing):
        return await _in_thread(read)


async def _in_thread(work: Callable[[Channel], T]) -> T:
    """What comes of some work with a channel of this thread's network namespace, in another one.

    Also where this is cancelled before the work has begun, the channel is closed.
    """
    channel, begun = Channel(), threading.Event()

    def run() -> T:
        begun.set()
        with channel:
            return work(channel)

    try:
        return await asyncio.to_thread(run)
    finally:
        if not begun.is_set():
            channel.close()


@contextmanager
def _told(doing: str) -> Iterator[None]:
    try:
        with understood(lambda error: OSError(errno.EBADMSG, f"not understood: {error}")):
            yield
    except OSError as error:
        raise _refused(doing, error) from error


def _refused(doing: str, error: OSError) -> KernelError:
    code, hint = error.errno or 0, ""
    if code == errno.EPERM:
        hint = NOT_ROOT
    elif code in LACKING and not has_nf_tables():
        code, hint = errno.EOPNOTSUPP, NO_NF_TABLES
    elif isinstance(error, TimeoutError):
        code = errno.ETIMEDOUT
        hint = "the machine is overloaded; the agent tries again"
    return KernelError(f"{doing}: {error.strerror or error}", code=code, hint=hint)
