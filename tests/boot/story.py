"""What is known of the VM's life: what the recorder saw, what the driver wrote down."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.boot.flow_program import PATIENCE
from tests.boot.place import BARE, PEER, VM
from tests.lab.faults import KILLED
from tests.lab.frames import Kind

FACTOR = 5.0
"""How much slower the guest may be than a real machine."""

AGENT_START, RESTART, WATCHDOG = 10.0, 1.0, 15.0
"""Seconds: until a started agent has everything in place, RestartSec of its unit, and what the lab
makes of its WatchdogSec."""

CHARON_KILLED = ("charon-killed", "charon-killed-2", "charon-killed-3")
"""Up to three times, for a machine's noise only ever adds to a time: the best counts."""

LIMITS = {
    "boot": FACTOR * AGENT_START,
    **dict.fromkeys(("given-up", "started"), FACTOR * AGENT_START),
    "hung": WATCHDOG + FACTOR * (RESTART + AGENT_START),
    **dict.fromkeys(CHARON_KILLED, FACTOR * KILLED),
    "upgraded": FACTOR * AGENT_START,
}
"""Seconds within which each must be healed here."""

TOLD = FACTOR * 1.0
"""Seconds after charon's end in which a peer may still send ESP into the void."""

NOTHING: dict[str, Any] = {
    "at": 0.0, "counts": [], "flows": {}, "planted": 0, "found": 0, "dropped": 0
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Span:
    """What the wire and the flows saw between two lines of the recorder."""

    first: dict[str, Any]
    last: dict[str, Any]

    def frames(self, source: str, destination: str, kind: Kind) -> int:
        """Frames of a kind from one address to the other."""
        wanted = [source, destination, str(kind)]
        return sum(
            sign * count
            for sign, line in ((1, self.last), (-1, self.first))
            for *key, count in line["counts"]
            if key == wanted
        )

    def grown(self, *path: str) -> int:
        """By how much a figure has grown."""
        found = []
        for line in (self.first, self.last):
            value: Any = line
            for name in path:
                value = value.get(name, {} if name != path[-1] else 0) or {}
            found.append(value if isinstance(value, int) else 0)
        return found[1] - found[0]

    def attempts(self, flow: str) -> int:
        """How often a flow tried."""
        names = self.last["flows"][flow]["refused"]
        return self.grown("flows", flow, "sent") + sum(
            self.grown("flows", flow, "refused", name) for name in names
        )


@dataclass(frozen=True, slots=True)
class Story:
    """All that is known of the VM's life."""

    lines: list[dict[str, Any]]
    phases: dict[str, dict[str, Any]]
    results: Path

    def span(self, name: str) -> Span:
        """A phase; the last one lasts until the power went."""
        phase = self.phases[name]
        assert "failed" not in phase, phase["failed"]
        return self.between(phase["began"], phase.get("ended", float("inf")))

    def lost(self, name: str, flow: str) -> int:
        """Datagrams that a flow sent in a phase and that were never answered.

        A flow gives a datagram up PATIENCE seconds after it sent it.
        """
        phase = self.phases[name]
        span = self.between(phase["began"] + PATIENCE, phase["ended"] + PATIENCE)
        return span.grown("flows", flow, "lost")

    def healed(self, name: str) -> float:
        """Seconds until a phase's harm was healed; of a boot, from the agent's start on.

        A boot is over with the first answer to the VM.
        """
        phase = self.phases[name]
        if name == "boot":
            answered = (line["at"] for line in self.lines if _answers(line))
            return next(answered, float("inf")) - float(phase["harmed"])
        return float(phase["healed"]) - float(phase["harmed"])

    def told(self, name: str) -> float:
        """Seconds from charon's end in a phase to the last ESP from the peer in it; 0 for none."""
        phase = self.phases[name]
        ended = float(phase["charon_ended"])
        lines = [line for line in self.lines if ended <= line["at"] <= phase["ended"]]
        later = [
            line["at"] - ended
            for before, line in itertools.pairwise(lines)
            if Span(before, line).frames(PEER, VM, Kind.ESP)
        ]
        return max(later, default=0.0)

    def between(self, began: float, ended: float) -> Span:
        """A span of the guest's monotonic time, widened to the line before it."""
        whole = [line for line in self.lines if None not in line["flows"].values()]
        before = [line for line in whole if line["at"] < began]
        within = [line for line in whole if line["at"] <= ended]
        return Span(before[-1] if before else NOTHING, within[-1])


def _answers(line: dict[str, Any]) -> bool:
    return bool((line["flows"].get("vm") or {}).get("answered"))


def figures(story: Story) -> Iterator[str]:
    """A line for each part of the life: what was tried, and what was on the wire."""
    yield (
        f"{'':21} {'s':>4} {'tried':>6} {'refused':>7} {'answered':>8} {'ESP':>6} {'clear':>5}"
        f" {'healed':>6} limit (a real machine's, times {FACTOR:g})"
    )
    for name, phase in story.phases.items():
        if "failed" in phase:
            yield f"{name:21} failed"
            continue
        span = story.span(name)
        flows = [flow for flow in span.last["flows"] if flow != "networking"]
        tried = sum(span.attempts(flow) for flow in flows)
        sent, answered = (
            sum(span.grown("flows", flow, what) for flow in flows) for what in ("sent", "answered")
        )
        esp, clear = (
            sum(span.frames(*pair, kind) for pair in ((VM, PEER), (PEER, VM), (VM, BARE)))
            for kind in (Kind.ESP, Kind.CLEAR)
        )
        seconds = span.last["at"] - span.first["at"]
        yield (
            f"{name:21} {seconds:4.0f} {tried:6} {tried - sent:7} {answered:8} {esp:6} {clear:5}"
            + (f" {story.healed(name):6.1f} {LIMITS[name]:5.1f}" if name in LIMITS else " " * 13)
            + "".join(_endings(story, name))
        )


def _endings(story: Story, name: str) -> Iterator[str]:
    """What of a phase is told behind its figures."""
    phase = story.phases[name]
    if phase.get("loses_nothing"):
        yield f" {story.lost(name, 'vm') + story.lost(name, 'peer')} lost;"
    if farewell := phase.get("farewell"):
        yield f" the job had {farewell['answered']} of {farewell['asked']} answers until its end;"
    if "charon_ended" in phase:
        yield f" {story.told(name):.1f} s until the peer was silent"
