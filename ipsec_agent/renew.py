"""`renew` in the agent: peers are moved to the certificate in force because an operator asks."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable, Iterable
from ipaddress import ip_address
from typing import Any

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address, address_order
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.rotation import Behind, behind
from ipsec_agent.errors import ControlError
from ipsec_agent.reconcile import Reconciler

DEADLINE = 20.0
"""Seconds that are waited for the peers."""

EVERY = 0.5
"""Seconds between looks at what became of it."""


Ask = Callable[[Iterable[str]], None]
"""Has the agent begin with these connections at once."""


def verb(loop: Reconciler, ask: Ask) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    """What answers a request of the control socket's."""

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        return await renew(loop, ask, addresses(request))

    return answer


async def renew(loop: Reconciler, ask: Ask, peers: tuple[Address, ...]) -> dict[str, Any]:
    """Move these peers, or all, and say which are moved and which are not.

    Raises:
        ControlError: there is no SA with one of them.
    """
    snapshot = await loop.passed()
    drift = snapshot.drift
    charon = drift.observed.charon
    sas = charon.sas if charon else ()
    # An IKE_SA alone carries nothing that could be moved.
    known = {sa.remote for sa in sas if any(one.state == "INSTALLED" for one in sa.children)}
    for peer in peers:
        if peer not in known:
            raise ControlError(
                f"there is no SA with {peer}", hint="`ipsec-agent status` lists the peers"
            )
    late = _of(drift, peers)
    made = (renewal(drift.desired, one.pair) for one in late)
    ask([one.name for one in made if one is not None])
    asked = {one.pair[1] for one in late}
    left = late
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(DEADLINE):
            while left:
                snapshot = await loop.passed()
                left = tuple(one for one in _of(snapshot.drift, peers) if one.pair[1] in asked)
                if left:
                    await asyncio.sleep(EVERY)
    reasons = {ip_address(one.peer): one.code for one in snapshot.suspects if one.code}
    behind_still = {one.pair[1] for one in left}
    return {
        "peers": len(set(peers) or known),
        "moved": sorted(map(str, asked - behind_still)),
        "left": [
            {"address": str(peer), "reason": reasons.get(peer, "")}
            for peer in sorted(behind_still, key=address_order)
        ],
    }


def _of(drift: Drift, peers: tuple[Address, ...]) -> tuple[Behind, ...]:
    return tuple(one for one in behind(drift) if not peers or one.pair[1] in peers)


def addresses(request: dict[str, Any]) -> tuple[Address, ...]:
    """The peers that a request names.

    Raises:
        ControlError: one is no address.
    """
    found = request.get("peers", [])
    try:
        return tuple(ip_address(str(one)) for one in found)
    except (TypeError, ValueError):
        raise ControlError(
            "a peer is not an IP address", hint="`ipsec-agent renew 10.0.1.9`"
        ) from None
