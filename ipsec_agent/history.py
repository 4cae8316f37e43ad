"""What the agent knows beside its looks: proofs of peers, and when they were cut off."""

import time
from pathlib import Path

from msgspec.structs import replace

from ipsec_agent.core.model import Address
from ipsec_agent.core.outages import (
    STEP,
    Cut,
    Memory,
    cut_off,
    followed,
    over_unseen,
    resumed,
    turned,
)
from ipsec_agent.core.status import Snapshot, State
from ipsec_agent.host.outages import NAME, OutageFile
from ipsec_agent.prover import Prover
from ipsec_agent.reconcile import Reconciler


class History:
    """Follows the looks of a loop.

    Args:
        state_dir: where the outages outlive the agent.
    """

    def __init__(self, loop: Reconciler, state_dir: str) -> None:
        self.prover = Prover(loop)
        self._file = OutageFile(Path(state_dir) / NAME)
        written, memory = self._file.read()
        now = time.time()
        self._outages: Memory = resumed(memory, written, now)
        self._last = min(written, now)
        self._resumed = True
        self._clocks: tuple[float, float] | None = None
        self._stepped = 0.0

    def follow(self, snapshot: Snapshot) -> None:
        """Take in a look."""
        now = snapshot.observed.time
        self._follow_clock(now)
        self.prover.follow(snapshot)
        if snapshot.state is State.STARTING:
            # Nothing is known yet.
            return
        cut = self._cut_off(snapshot)
        if self._resumed:
            self._resumed = False
            self._outages = over_unseen(self._outages, cut, self._last)
        self._outages = followed(self._outages, cut, now, stepped=self._stepped)
        self._file.keep(self._outages)

    def _cut_off(self, snapshot: Snapshot) -> dict[Address, Cut]:
        if snapshot.config.optional:
            # Packets pass without an SA, too.
            return {}
        return cut_off(
            snapshot.drift,
            snapshot.traffic,
            snapshot.suspects,
            snapshot.problems,
            proofs=self.prover.proofs.peers,
            before=self._outages,
        )

    def _follow_clock(self, now: float) -> None:
        steady = time.monotonic()
        if self._clocks is not None:
            by = (now - self._clocks[0]) - (steady - self._clocks[1])
            if abs(by) >= STEP:
                self._outages = turned(self._outages, now, by)
                self._last = min(self._last, now)
                self._stepped = now
        self._clocks = now, steady

    def complete(self, snapshot: Snapshot) -> Snapshot:
        """The look with what is known beside it."""
        return replace(snapshot, proofs=self.prover.proofs, outages=self._outages)

    def close(self) -> None:
        """Write what the next agent takes up."""
        self._file.keep(self._outages, at_once=True)
