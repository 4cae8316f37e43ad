"""A reload is rehearsed with peers: before it, and by `reload --dry-run`."""

import asyncio
import contextlib
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Protocol

from ipsec_agent.admission import Told
from ipsec_agent.config_file import Loaded
from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.model import Desired, Pair, address_order
from ipsec_agent.core.rehearsal import (
    BOUND,
    BOUND_OF_SAMPLE,
    SAMPLE,
    Answer,
    Asked,
    differs,
    holds,
    known,
    refused_by_most,
    rehearsal,
    told,
)
from ipsec_agent.errors import CharonError, StartError
from ipsec_agent.host.rehearsals import Rehearsals
from ipsec_agent.reconcile import Reconciler

REASONS = 5.0
"""Seconds to wait for the pass that knows why peers refuse; without it, they refuse for none."""


async def refuse_refused(
    loop: Reconciler, rehearsals: Rehearsals, config: Config, *, force: bool
) -> None:
    """Refuse another certificate, or other CAs, that most of the peers refuse.

    Nobody is asked where they are the same, where those in force do not hold, or with `force`. What
    cannot be found out refuses nothing.

    Raises:
        StartError: more of the peers that answered refuse it than accept it.
    """
    in_force = loop.config
    if force or not differs(config, in_force) or not holds(in_force, datetime.now(UTC)):
        return
    until = time.monotonic() + BOUND_OF_SAMPLE
    asked = await rehearse(loop, rehearsals, config, until, SAMPLE)
    if refused_by_most(asked):
        raise StartError(
            f"the certificate or the CAs would cut peers off: {told(asked)}",
            hint="let all VMs have the new CA before one uses a certificate of it; to take it all"
            " the same, run `ipsec-agent reload --force`",
        )


async def rehearse(
    loop: Reconciler,
    rehearsals: Rehearsals,
    config: Config,
    until: float,
    most: int | None = None,
) -> tuple[Asked, ...]:
    """Ask the peers with which there are SAs, or some of them; () where there are none.

    Args:
        until: when the last peer must have answered, by time.monotonic; who has had no turn at half
            the time is not asked, since who refuses needs the rest.
    """
    snapshot = loop.snapshot
    if snapshot is None or snapshot.placement is None:
        return ()
    pairs = known(snapshot.observed.charon, most)
    if not pairs:
        return ()
    half = (time.monotonic() + until) / 2
    try:
        async with rehearsals.using(config.credentials):
            wanted = desired(config, snapshot.placement)
            answers = await _answers(rehearsals, wanted, pairs, half)
    except CharonError:
        return tuple(Asked(peer, Answer.NOT_ASKED) for _, peer in pairs)
    refused = [pair for pair, answer in answers.items() if answer is Answer.REFUSED]
    reasons: dict[str, str] = {}
    if refused:
        reasons = await _reasons(loop)
        await _answers(rehearsals, snapshot.desired, refused, until)
    return tuple(
        Asked(peer, answer, reasons.get(str(peer), "") if answer is Answer.REFUSED else "")
        for (_, peer), answer in answers.items()
    )


async def _reasons(loop: Reconciler) -> dict[str, str]:
    """Why peers refuse, as charon's log tells it."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(REASONS):
            return {one.peer: one.code for one in (await loop.passed()).suspects}
    return {}


async def _answers(
    rehearsals: Rehearsals, wanted: Desired, pairs: tuple[Pair, ...] | list[Pair], until: float
) -> dict[Pair, Answer]:
    """What each says; whose answer might come later is not asked."""

    async def ask(pair: Pair) -> Answer:
        made = rehearsal(wanted, pair)
        return Answer.NOT_ASKED if made is None else await rehearsals.ask(made, until)

    found = await asyncio.gather(*map(ask, pairs), return_exceptions=True)
    answers = {}
    for pair, one in zip(pairs, found, strict=True):
        if isinstance(one, BaseException):
            raise one
        answers[pair] = one
    return answers


class Judge(Protocol):
    """Reads the config that is to come, and refuses what a reload would refuse."""

    def __call__(self, *, asks: bool) -> Awaitable[tuple[Loaded, object, Told]]:
        """The config, and what a reload would tell of it.

        Args:
            asks: refuse to end optional mode where that cuts peers off.

        Raises:
            AgentError: it is refused.
        """


def verb(
    loop: Reconciler,
    rehearsals: Rehearsals,
    judge: Judge,
) -> Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]:
    """What answers `reload --dry-run` on the control socket."""

    async def answer(request: dict[str, Any]) -> dict[str, Any]:
        until = time.monotonic() + BOUND
        loaded, _, told_of_it = await judge(asks=bool(request.get("asks")))
        config = loaded.config
        asked = await rehearse(loop, rehearsals, config, until)
        return {
            "same": not differs(config, loop.config),
            "refused": refused_by_most(asked),
            "warnings": list(told_of_it.all),
            "peers": [
                {"address": str(one.peer), "answer": one.answer.value, "reason": one.reason}
                for one in sorted(asked, key=lambda one: address_order(one.peer))
            ],
        }

    return answer
