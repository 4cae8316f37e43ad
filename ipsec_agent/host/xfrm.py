"""The kernel's IPsec policies and SAs: list, delete, watch.

Nothing here makes policies or SAs: that is charon's. (preflight.py adds a dummy SA for a moment.)
One thing of a trap is changed, since charon cannot say it: whether it requires ESP.
"""

import errno
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial
from typing import Any

from ipsec_agent.core.model import Address, Direction, PolicySelector
from ipsec_agent.core.observed import Policy, SecurityAssociation
from ipsec_agent.errors import KernelError
from ipsec_agent.host.decoded import Decoded
from ipsec_agent.host.netlink_wire import open_netlink, watch
from ipsec_agent.host.rtnetlink import DEADLINE, NLM_F_ACK
from ipsec_agent.host.xfrm_level import policy_replacement
from ipsec_agent.host.xfrm_messages import (
    DEFAULT_REQUEST,
    NETLINK_XFRM,
    Group,
    Kind,
    packed,
)
from ipsec_agent.host.xfrm_records import (
    POLICY_USED,
    default_blocks,
    matters,
    policy_deletion,
    policy_of,
    records,
    state_deletion,
    state_of,
)
from ipsec_agent.host.xfrm_wire import LACKING, XfrmWire

_GROUPS = (Group.EXPIRE, Group.SA, Group.POLICY)


class Xfrm:
    """The kernel's policies and SAs in this process's network namespace."""

    def __init__(self, wire: XfrmWire) -> None:
        self._wire = wire
        self._policies = Decoded(policy_of, passed_over=POLICY_USED)
        self._states = Decoded(state_of)

    async def policies(self) -> tuple[Policy, ...]:
        """All policies but those of single sockets, such as charon's own for IKE.

        Raises:
            KernelError: refused, too late, or the kernel has no XFRM.
        """
        found = await self._wire.dump("reading the kernel's policies", Kind.GET_POLICY)
        return records(self._policies, found)

    async def states(self) -> tuple[SecurityAssociation, ...]:
        """The ESP SAs, larval ones (SPI 0) included. No key is decoded.

        Those that a mark or an interface narrows are somebody else's, and left out.

        Raises:
            KernelError: refused, too late, or the kernel has no XFRM.
        """
        found = await self._wire.dump("reading the kernel's SAs", Kind.GET_SA)
        return records(self._states, found)

    async def default_blocks(self) -> tuple[Direction, ...]:
        """Where the kernel blocks packets that no policy selects; nowhere before Linux 5.15.

        Raises:
            KernelError: refused, too late, or the kernel has no XFRM.
        """
        doing = "reading the default policy"
        try:
            return default_blocks(await self._wire.ask(doing, Kind.GET_DEFAULT, DEFAULT_REQUEST))
        except KernelError as error:
            if error.code == errno.EINVAL:
                return ()
            raise

    async def delete_policy(self, policy: Policy | PolicySelector) -> None:
        """Delete a policy: the very one that was read, or the one with this selector.

        Raises:
            KernelError: refused, too late, or there is none (ENOENT).
        """
        selector = policy.selector if isinstance(policy, Policy) else policy
        doing = f"deleting the policy {selector.source} -> {selector.destination}"
        await self._change(doing, policy_deletion(policy), Kind.DELETE_POLICY)

    async def set_level(self, policy: Policy, *, optional: bool) -> None:
        """Have a policy of one template require ESP, or use it only where there is an SA.

        It is replaced in one moment, and keeps its selector, priority, index and reqid.

        Raises:
            KernelError: refused, or too late.
        """
        selector = policy.selector
        doing = f"changing the policy {selector.source} -> {selector.destination}"
        message = policy_replacement(policy, optional=optional)
        await self._change(doing, message, Kind.UPDATE_POLICY)

    async def delete_state(self, source: Address, destination: Address, spi: int) -> None:
        """Delete an ESP SA. Larval ones (SPI 0) cannot be named: they expire.

        The kernel finds an SA by destination and SPI; the source is for the error message.

        Raises:
            KernelError: refused, too late, or there is none (ESRCH).
        """
        doing = f"deleting the SA {source} -> {destination} with SPI {spi:08x}"
        await self._change(doing, state_deletion(destination, spi), Kind.DELETE_SA)

    async def _change(self, doing: str, message: Any, kind: Kind) -> None:
        await self._wire.ask(doing, kind, packed(message), NLM_F_ACK)

    async def watch(self, wake: Callable[[], None]) -> None:
        """Call `wake` until cancelled: policies came, changed, went; SAs went.

        Also at the start, after lost events, and for changes of our own.

        Raises:
            KernelError: the kernel does not let us listen.
        """
        await watch(
            "listening to the kernel's policies",
            partial(open_netlink, NETLINK_XFRM, _GROUPS),
            wake,
            matters=matters,
            lacking=LACKING,
        )


@asynccontextmanager
async def open_xfrm(*, deadline: float = DEADLINE) -> AsyncIterator[Xfrm]:
    """Xfrm for this process's network namespace; `deadline` in seconds per request.

    The socket is opened by the first request, which tells whether the kernel has XFRM.
    """
    wire = XfrmWire(deadline=deadline)
    try:
        yield Xfrm(wire)
    finally:
        wire.close()
