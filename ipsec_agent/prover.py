"""The proof of `agent.proof`: in the background, peers with an SA are proved one after the other.

It has no part in a pass: no repair waits for it. It rests while IPsec drains, while a reload is
under way and until a pass has seen the config in force.
"""

import asyncio
import contextlib
import random
import time
from collections.abc import Iterator, Sequence
from typing import Any

from ipsec_agent.core.model import Address
from ipsec_agent.core.problems.problem import Problem
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.proof import Observation, Pair
from ipsec_agent.core.proving import (
    Proof,
    Proofs,
    judged,
    pace,
    proof_problems,
    provable,
    unable,
)
from ipsec_agent.core.status import Snapshot, State, document
from ipsec_agent.core.verify import judge
from ipsec_agent.errors import AgentError
from ipsec_agent.host.exhausted import remedy
from ipsec_agent.host.peer_sas import PeerSas
from ipsec_agent.reconcile import Reconciler
from ipsec_agent.verification import Shared, prove

DEADLINE = 30.0
"""Seconds for a batch; peers that are not judged by then have their next turn."""

JITTER = 0.2
"""Part of a gap by which it is longer or shorter, so that VMs do not go in step."""


class Prover:
    """Proves peers, and remembers the newest proof of each that has an SA."""

    def __init__(self, loop: Reconciler) -> None:
        self._loop = loop
        self._proofs: dict[Address, Proof] = {}
        self._holds = 0
        self._held = 0

    @property
    def proofs(self) -> Proofs:
        """What the status tells of them."""
        return Proofs(self._loop.config.agent.proof, tuple(self._proofs.values()))

    @contextlib.contextmanager
    def held(self) -> Iterator[None]:
        """Nothing is proved within the context, and what was under way at its begin is void."""
        self._held += 1
        self._holds += 1
        try:
            yield
        finally:
            self._held -= 1

    def follow(self, snapshot: Snapshot) -> None:
        """Forget, after a look, the proofs of peers that the config does not encrypt any more."""
        promise = Promise.of(snapshot.config)
        on = bool(snapshot.config.agent.proof)
        left = {peer: one for peer, one in self._proofs.items() if on and promise.encrypted(peer)}
        if len(left) != len(self._proofs):
            self._proofs = left
            self._tell(proof_problems(left.values()))
            self._loop.wake.set()

    async def run(self) -> None:
        """Prove, as the config says, until cancelled."""
        while True:
            if not self._loop.config.agent.proof:
                self._proofs = {}
                self._tell(())
            try:
                proved = await self._round()
            except (AgentError, OSError) as error:
                # Such as no descriptor left for a socket: it is told, and tried again.
                self._tell((_unable(error),))
                proved = False
            if not proved:
                await asyncio.sleep(self._loop.config.agent.interval)

    def _ready(self) -> Snapshot | None:
        """The newest look, None while the proof has to rest."""
        seen = self._loop.snapshot
        if self._held or seen is None or seen.config is not self._loop.config:
            return None
        rests = seen.state in {State.STARTING, State.DRAINING} or seen.observed.drain is not None
        return None if rests else seen

    async def _round(self) -> bool:
        """Each peer that has an SA once; whether there was any, and a reason to."""
        seen = self._ready()
        if seen is None or not seen.config.agent.proof:
            return False
        config = seen.config
        pairs = list(provable(seen.drift, Promise.of(config), optional=config.optional))
        known = {pair.peer for pair in pairs}
        self._proofs = {peer: one for peer, one in self._proofs.items() if peer in known}
        self._tell(proof_problems(self._proofs.values()))
        random.shuffle(pairs)
        size, gap = pace(config.agent.proof, len(pairs))
        with PeerSas() as sas:
            await asyncio.to_thread(sas.list)
            for first in range(0, len(pairs), size):
                until = time.monotonic() + gap * random.uniform(1 - JITTER, 1 + JITTER)  # noqa: S311 - no secret
                await self._batch(pairs[first : first + size], sas)
                while (left := until - time.monotonic()) > 0:
                    await asyncio.sleep(min(left, config.agent.interval))
                    if self._loop.config is not config:
                        return False
        return bool(pairs)

    async def _batch(self, pairs: Sequence[Pair], sas: PeerSas) -> None:
        """Prove some peers at the same time, and note what came of it."""
        seen, holds = self._ready(), self._holds
        if seen is None:
            return
        said = Shared(lambda: asyncio.to_thread(_status, self._loop.snapshot))
        tasks = [
            asyncio.create_task(prove(pair, pair.own, sas, said)) for pair in pairs if pair.own
        ]
        try:
            await asyncio.wait(tasks, timeout=DEADLINE)
        finally:
            for task in tasks:
                task.cancel()
            found = await asyncio.gather(*tasks, return_exceptions=True)
        if holds != self._holds or self._loop.config is not seen.config:
            return
        self._note(found)

    def _note(self, found: Sequence[Observation | BaseException | None]) -> None:
        now = time.time()
        cannot: tuple[Problem, ...] = ()
        for one in found:
            if isinstance(one, (AgentError, OSError)):
                cannot = (_unable(one),)
            elif isinstance(one, BaseException):
                if not isinstance(one, asyncio.CancelledError):
                    raise one
            elif one is not None:
                peer = one.pair.peer
                self._proofs[peer] = judged(self._proofs.get(peer), peer, judge(one), now)
        self._tell((*proof_problems(self._proofs.values()), *cannot))

    def _tell(self, problems: tuple[Problem, ...]) -> None:
        """For the next pass, which is at most an interval away."""
        self._loop.reporter.of_proof = problems


def _unable(error: AgentError | OSError) -> Problem:
    if isinstance(error, AgentError):
        return unable(error.message, error.hint)
    return unable(error.strerror or str(error), remedy(error))


def _status(seen: Snapshot | None) -> dict[str, Any]:
    return document(seen) if seen is not None else {}
