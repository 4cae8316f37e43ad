"""The low-rate proof of `agent.proof`: how fast, what is remembered of each peer, what is wrong.

Only peers with an SA are proved: a proof makes no SA with a peer with which nobody speaks.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

from msgspec import Struct

from ipsec_agent.core.commands import About
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.proof import Finding, Pair, Verdict
from ipsec_agent.core.traffic import by_peer
from ipsec_agent.core.words import several

AT_ONCE = 16
"""Peers of one batch, which share the readings of the kernel's SAs."""

LEAST_GAP = 4.0
"""Seconds between two batches: never more than four peers a second."""

ENOUGH = 2
"""Proofs that fail in a row until that is a problem."""


class Proof(Struct, frozen=True):
    """The newest proof of a peer.

    Attributes:
        time: when, seconds since the epoch.
        failures: how many have failed in a row.
        first: when the first of these failed, 0 where none did.
    """

    address: Address
    verdict: Verdict
    message: str
    hint: str
    time: float
    failures: int = 0
    first: float = 0.0

    @property
    def proven(self) -> bool:
        """Whether packets were ESP both ways, and large ones passed, too."""
        return self.verdict is Verdict.PROVEN

    @property
    def fails(self) -> bool:
        """Whether it has failed often enough to tell of it."""
        return self.failures >= ENOUGH


class Proofs(Struct, frozen=True):
    """What the status tells of the proof.

    Attributes:
        seconds: those of `agent.proof`, 0 where it is off.
    """

    seconds: float = 0.0
    peers: tuple[Proof, ...] = ()


def judged(before: Proof | None, peer: Address, found: Finding, now: float) -> Proof:
    """A peer's newest proof.

    Args:
        before: the one before it.
        now: seconds since the epoch.
    """
    if found.verdict is Verdict.PROVEN:
        return Proof(peer, found.verdict, found.message, found.hint, now)
    failures = before.failures + 1 if before else 1
    first = before.first if before and before.failures else now
    # The clock may have been set back.
    return Proof(
        peer, found.verdict, found.message, found.hint, now, failures, min(first or now, now)
    )


def provable(drift: Drift, promise: Promise, *, optional: bool) -> tuple[Pair, ...]:
    """The peers with an SA each way, and which address of this VM's each one speaks with."""
    pairs = []
    for peer, (inward, outward) in by_peer(drift.observed.states, drift.desired.addresses).items():
        if inward and outward and promise.encrypts(outward[0].source, peer):
            own = outward[0].source
            pairs.append(Pair(peer, own, encrypted=True, because="", optional=optional))
    return tuple(pairs)


def pace(seconds: float, peers: int) -> tuple[int, float]:
    """How many peers make a batch, and seconds from one batch to the next.

    A peer has its turn once in `seconds`; where that would be more than four a second, later.
    """
    size = min(max(math.ceil(peers * LEAST_GAP / seconds), 1), AT_ONCE)
    return size, max(seconds * size / max(peers, 1), LEAST_GAP)


def proof_problems(proofs: Iterable[Proof]) -> tuple[Problem, ...]:
    """One for each verdict, in the words of the peer that has failed longest."""
    failing: dict[Verdict, list[Proof]] = {}
    for one in sorted((one for one in proofs if one.fails), key=lambda one: one.first):
        failing.setdefault(one.verdict, []).append(one)
    return tuple(_problem(verdict, found) for verdict, found in failing.items())


def _problem(verdict: Verdict, found: list[Proof]) -> Problem:
    first, *others = found
    more = f"; the same with {listed([one.address for one in others])}" if others else ""
    return Problem(
        "proof-failed",
        Severity.WARNING,
        f"{several(first.failures, 'proof')} in a row failed ({verdict}): {first.message}{more}",
        first.hint or f"run `ipsec-agent verify {first.address}`",
        verdict.value,
    )


def unable(message: str, hint: str) -> Problem:
    """The proof itself does not work on this VM."""
    return Problem("proof-failed", Severity.WARNING, f"no peer can be proved: {message}", hint)


def summary(proofs: Proofs) -> dict[str, Any] | None:
    """For the status, as JSON's types; None where it is off."""
    if not proofs.seconds:
        return None
    times = [one.time for one in proofs.peers]
    verdicts: dict[str, int] = {}
    for one in proofs.peers:
        verdicts[one.verdict.value] = verdicts.get(one.verdict.value, 0) + 1
    return {
        "seconds": proofs.seconds,
        "proven": verdicts.get(Verdict.PROVEN.value, 0),
        "failing": sum(one.fails for one in proofs.peers),
        "verdicts": dict(sorted(verdicts.items())),
        "oldest": min(times, default=None),
        "newest": max(times, default=None),
    }


def entries(proofs: Proofs, about: About) -> Mapping[str, dict[str, Any]]:
    """For each peer's entry in the status, by its address."""
    return {
        str(one.address): {
            "proven": one.proven,
            "verdict": one.verdict.value,
            "message": one.message,
            "hint": about.text(one.hint),
            "time": one.time,
            "failures": one.failures,
        }
        for one in proofs.peers
    }
