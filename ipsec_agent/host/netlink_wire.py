"""One netlink connection: requests with a deadline, whole dumps, events that ring a bell.

It uses pyroute2's AsyncNetlinkSocket (0.9), and handles what that leaves open:

- a dump that the kernel marks as interrupted (NLM_F_DUMP_INTR) is repeated;
- a socket is thrown away after a deadline, a cancelled request or an overflow (ENOBUFS), after
  which pyroute2 could not go on with it, and opened again by the next request;
- one request at a time, as the kernel refuses a second dump on one socket (EBUSY).
"""

import asyncio
import errno
import os
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import aclosing, asynccontextmanager, contextmanager
from typing import Any, TypeVar

from ipsec_agent.errors import KernelError
from ipsec_agent.host import own_time
from ipsec_agent.host.pyroute2_parts import (
    NLM_F_ACK,
    NLM_F_DUMP,
    NLM_F_DUMP_INTR,
    NLM_F_REQUEST,
    NetlinkError,
)
from ipsec_agent.host.understood import NOT_UNDERSTOOD

DEADLINE = 5.0
DUMP_ATTEMPTS = 10

T = TypeVar("T")

_HINTS = {
    errno.EPERM: "run as root, or with the capability CAP_NET_ADMIN",
    errno.EACCES: "run as root, or with the capability CAP_NET_ADMIN",
    errno.ENODEV: "the link does not exist; it may just be gone",
    errno.ENOENT: "it does not exist; it may just be gone",
    errno.ESRCH: "it does not exist; it may just be gone",
    errno.EEXIST: "it exists already",
    errno.EBADMSG: "this agent does not understand the kernel's answer; it tries again",
    errno.EBUSY: "another request is under way; try again",
    errno.ETIMEDOUT: "the kernel or this process is overloaded; the agent tries again",
}
_LACKING = {
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.EOPNOTSUPP,
    # The family is known, but no part of the kernel serves it.
    errno.ECONNREFUSED,
}


class NetlinkWire:
    """A netlink socket for requests, opened by the first of them.

    Args:
        open_socket: makes a new AsyncNetlinkSocket; it may raise OSError.
        deadline: seconds that a request may take.
        lacking: the hint for a kernel that does not know this netlink family.
    """

    def __init__(
        self,
        open_socket: Callable[[], Any],
        *,
        deadline: float = DEADLINE,
        lacking: str = "",
    ) -> None:
        self._open_socket = open_socket
        self._deadline = deadline
        self._lacking = lacking
        self._lock = asyncio.Lock()
        self._socket: Any = None

    def close(self) -> None:
        """Close the socket; a later request opens a new one."""
        if self._socket is not None:
            self._socket.close()
            self._socket = None

    async def dump(self, doing: str, message: Callable[[], Any], kind: int) -> list[Any]:
        """Ask for everything of one kind.

        Args:
            doing: what is being done, for error messages.
            message: makes the request.
            kind: its message type.

        Raises:
            KernelError: refused, too late, or interrupted by changes time and again.
        """

        async def whole(socket: Any) -> list[Any]:
            for _ in range(DUMP_ATTEMPTS):
                found, interrupted = await _dump_once(socket, message(), kind)
                if not interrupted:
                    return found
            raise KernelError(
                f"{doing}: changed during each of {DUMP_ATTEMPTS} readings",
                code=errno.EINTR,
                hint="something changes it all the time; the agent tries again",
            )

        return await self.perform(doing, whole)

    async def request(self, doing: str, message: Any, kind: int) -> None:
        """Have one thing done, and wait for the kernel's word that it is.

        Raises:
            KernelError: refused, or too late.
        """

        async def acknowledged(socket: Any) -> None:
            # pyroute2 reports a refusal only to those who read the answer to its end.
            async with aclosing(
                await socket.nlm_request(message, kind, NLM_F_REQUEST | NLM_F_ACK)
            ) as answer:
                async for _ in answer:
                    pass

        await self.perform(doing, acknowledged)

    async def perform(self, doing: str, work: Callable[[Any], Awaitable[T]]) -> T:
        """Do some work with the socket, within the deadline; waiting for one's turn is extra.

        Raises:
            KernelError: refused, or too late.
        """
        async with self._lock:
            try:
                with translated(doing, self._lacking):
                    async with own_time.timeout(self._deadline):
                        if self._socket is None:
                            self._socket = self._open_socket()
                        return await work(self._socket)
            except BaseException:
                self.close()
                raise


@asynccontextmanager
async def listening(
    doing: str, open_socket: Callable[[], Any], groups: Sequence[int], *, lacking: str = ""
) -> AsyncIterator[AsyncIterator[Any]]:
    """What the kernel tells some multicast groups, from the moment of entry on.

    Raises:
        KernelError: refused at entry; from the iterator, with code ENOBUFS, where events were
            lost.
    """
    with translated(doing, lacking):
        socket = open_socket()
    try:
        with translated(doing, lacking):
            # Unbound, a socket has port 0 as the kernel has, and is left out as its own echo.
            # With no groups but these: pyroute2 has a dozen of its own for rtnetlink, and each
            # neighbour that ARP finds would be an event.
            await socket.bind(0)
            for group in groups:
                socket.add_membership(group)
        yield _heard(doing, socket)
    finally:
        socket.close()


async def watch(
    doing: str,
    open_socket: Callable[[], Any],
    groups: Sequence[int],
    wake: Callable[[], None],
    *,
    matters: Callable[[Any], bool],
    lacking: str = "",
) -> None:
    """Call `wake` at every event that matters, until cancelled.

    It is called at the start, too, and after events that were lost or are not understood: what
    happened before the ear was open is unknown.

    Raises:
        KernelError: the kernel does not let us listen.
    """
    while True:
        async with listening(doing, open_socket, groups, lacking=lacking) as events:
            wake()
            try:
                async for event in events:
                    if matters(event):
                        wake()
            except KernelError as error:
                if error.code not in {errno.ENOBUFS, errno.EBADMSG}:
                    raise


@contextmanager
def translated(doing: str, lacking: str = "") -> Iterator[None]:
    """Turn what pyroute2 and the socket raise into a KernelError.

    Args:
        doing: what is being done, for the message.
        lacking: the hint for a kernel that does not know this netlink family.
    """
    try:
        yield
    except TimeoutError as error:
        raise _refusal(doing, errno.ETIMEDOUT, lacking) from error
    except NetlinkError as error:
        raise _refusal(doing, error.code, lacking) from error
    except OSError as error:
        raise _refusal(doing, error.errno or 0, lacking) from error
    except NOT_UNDERSTOOD as error:
        raise _refusal(doing, errno.EBADMSG, lacking) from error


def _refusal(doing: str, code: int, lacking: str) -> KernelError:
    hint = lacking if lacking and code in _LACKING else _HINTS.get(code, "")
    return KernelError(f"{doing}: {os.strerror(code)}", code=code, hint=hint)


async def _dump_once(socket: Any, message: Any, kind: int) -> tuple[list[Any], bool]:
    """One reading, and whether it was interrupted."""
    flags = 0

    def note(part: Any) -> None:
        # Sees the closing NLMSG_DONE, too, which carries the flag when the last part changed.
        nonlocal flags
        flags |= part["header"]["flags"]

    request = await socket.nlm_request(message, kind, NLM_F_REQUEST | NLM_F_DUMP, callback=note)
    async with aclosing(request) as parts:
        found = [part async for part in parts]
    return found, bool(flags & NLM_F_DUMP_INTR)


async def _heard(doing: str, socket: Any) -> AsyncIterator[Any]:
    while True:
        with translated(doing):
            # pyroute2's get ends after each datagram.
            async for event in socket.get():
                yield event
