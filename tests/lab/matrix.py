"""The fault matrix: one row a fault, under the floods of a bed, judged on the wire and in time."""

import contextlib
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from tests.charon.nodes import SCALE, until
from tests.lab.bed import TOWARDS_A, Bed
from tests.lab.faults import FLOWS_AGAIN, Fault
from tests.lab.floods import Flood
from tests.lab.judge import assert_only_esp
from tests.lab.traffic import Flow
from tests.lab.truth import Watch, dropped
from tests.lab.wire import Capture

FACTOR = min(SCALE, 5.0)
"""What the limits of a real machine are multiplied by in a slower lab."""

WINDOW = 1.6
"""Seconds that a row lasts at least."""

LEAST = 0.3
"""Part of the floods' rate that must have been tried, where the machine is busy otherwise, too."""

TRIED = 0.8
"""Seconds at its rate: so often each flood must have tried within the window, which is open as long
as that takes."""

REST = 0.7
"""Seconds of the window after all that happens in it."""

TRIES = 3
"""Tries of which the one in the middle holds a limit: the noise of a machine adds to a time."""

PATIENCE = 10.0
"""Seconds beyond its limit in which a row is still watched, so that it can say how long it took."""

SLOWER = 1.0 if SCALE == 1 else 1.3
"""For limits that mostly are a wait of fixed length."""

LIAR = '"code": "peer-lies"'
"""What no agent may say of its peer here."""

Moved = tuple[Counter[str], Counter[str]]
"""What the counters of /proc/net/xfrm_stat rose by, on VM a and on its peer."""


@dataclass(frozen=True, slots=True)
class Figures:
    """What one row measured.

    Attributes:
        clear: packets between the VMs that were neither ESP nor IKE.
        sends: how often the floods tried within the window, and how often the kernel refused.
        seconds: of the window.
        lost: datagrams that the kernel took and that never came.
        pause: the longest time, in seconds, in which nothing of one flood arrived.
        healed: seconds until it was; None where nothing was to heal.
        limit: seconds for that, here.
        moved: what the kernels' counters say.
    """

    setting: str
    name: str
    clear: int
    sends: int
    refused: int
    seconds: float
    lost: int
    pause: float
    healed: float | None
    limit: float
    moved: Moved


class TooSlowError(AssertionError):
    """What had to happen happened, but the machine or the agent took too long."""


@dataclass(frozen=True, slots=True)
class Healing:
    """What the watch saw.

    Attributes:
        took: seconds until it was healed, None where it was not, or nothing broke.
        limit: seconds that it may take, 0 where nothing may break.
        broken: it was seen to break.
        looks: how often it was looked at.
        log: the end of the agent's log.
    """

    name: str
    took: float | None
    limit: float
    broken: bool
    looks: int
    log: str

    def judge(self) -> None:
        """Judge it.

        Raises:
            TooSlowError: it was not healed in time.
            AssertionError: it is not healed, or broke where it must not.
        """
        if not self.limit:
            assert not self.broken, f"{self.name}: it broke: {self.log}"
            return
        assert self.broken, f"{self.name} was not seen in {self.looks} looks"
        assert self.took is not None, f"{self.name} is not healed: {self.log}"
        if self.took > self.limit:
            raise TooSlowError(f"{self.name}: healed after {self.took:.2f} s: {self.log}")


def row(
    bed: Bed,
    fault: Fault,
    report: Callable[[Figures], object] = lambda _figures: None,
    *,
    settle: bool = True,
    patience: float = PATIENCE,
    esp: int = 100,
) -> None:
    """Have one thing happen, report its figures, and judge it.

    Args:
        settle: wait until all is healthy before it.
        patience: seconds beyond its limit in which healing is still waited for.
        esp: packets of ESP that there must be, so that what happens is no mere silence.

    Raises:
        TooSlowError: healed, but not in time; or the floods were far slower than they should be.
        AssertionError: clear packets, or a capture that is no judge; not healed; lost packets where
            none may be; a counter that may not move; or a flood that never arrives again.
    """
    if settle:
        bed.settle()
    bed.told, bed.ended = False, set()
    before = (dropped(bed.a.name), dropped(bed.b.name))
    said = [len(node.log) for node in (bed.a, bed.b)]
    running = {
        name: flood for name, flood in bed.floods.items() if not fault.crash or name in TOWARDS_A
    }
    pairs = [(bed.one, bed.other), *(pair[:2] for pair in bed.further)]
    with (
        _held(bed, [flood for name, flood in bed.floods.items() if name not in running]),
        Capture(bed.hub, pairs=pairs) as capture,
    ):
        tried = int(TRIED * bed.setting.rate * len(running))
        healing, flows = _happened(bed, fault, running, patience, tried)
        moved = (dropped(bed.a.name) - before[0], dropped(bed.b.name) - before[1])
        figures = _figures(bed, capture, flows, healing, moved)
        report(figures)
        ends = (bed.a.name, bed.one, bed.other)
        assert_only_esp(capture, *ends, *flows, at_least=tried, esp=esp, further=bed.further)
        assert capture.clear() == {}, f"clear: {capture.clear()}"
    if fault.lossless:
        _nothing_lost(flows, fault.racing)
    healing.judge()
    _expected(fault, bed, figures.moved)
    for node, length in zip((bed.a, bed.b), said, strict=True):
        assert LIAR not in node.log[length:], f"{node.name} calls its peer a liar: {node.log}"
    bed.flowing(tuple(bed.floods), FLOWS_AGAIN * FACTOR)
    least = int(LEAST * bed.setting.rate * len(flows) * figures.seconds)
    if figures.sends < least:
        raise TooSlowError(f"only {figures.sends} of {least} attempts in {figures.seconds:.1f} s")


def median_row(
    bed: Bed, fault: Fault, report: Callable[[Figures], object] = lambda _figures: None
) -> None:
    """A row whose limits hold at the first try, or at the two further ones, and so in the median.

    Raises:
        TooSlowError, AssertionError: as `row`; what is no matter of time fails at the first try.
    """
    try:
        row(bed, fault, report)
    except TooSlowError:
        for _ in range(TRIES - 1):
            row(bed, fault, report)


@contextlib.contextmanager
def _held(bed: Bed, floods: Sequence[Flood]) -> Iterator[None]:
    """Hold some floods meanwhile, and let go what a fault holds."""
    for flood in floods:
        flood.hold()
    try:
        yield
    finally:
        bed.let_go()
        for flood in floods:
            flood.go_on()


def _happened(
    bed: Bed, fault: Fault, running: Mapping[str, Flood], patience: float, tried: int
) -> tuple[Healing, list[Flow]]:
    """Have it happen and heal, and what the floods did in that window."""
    starts = {name: flood.read() for name, flood in running.items()}

    def flown() -> list[Flow]:
        return [running[name].since(start) for name, start in starts.items()]

    began = time.monotonic()
    healing = _watched(bed, fault, patience)
    if fault.undo is not None:
        fault.undo(bed)
    time.sleep(max(REST, WINDOW - (time.monotonic() - began)))
    until(lambda: sum(flow.attempts for flow in flown()) >= tried, "the floods' attempts")
    flows = flown()
    if fault.lossless and any(flow.lost for flow in flows):
        # What was overtaken may still be under way.
        time.sleep(REST)
        flows = flown()
    return healing, flows


def _nothing_lost(flows: Sequence[Flow], racing: int) -> None:
    # EPERM: the guard caught what no policy encrypted at that moment.
    barred = [flow.refused.get("EPERM", 0) for flow in flows]
    assert sum(barred) == 0, f"the guard refused {barred}"
    overtaken = [flow.refused.get("EINVAL", 0) for flow in flows]
    assert sum(overtaken) <= racing, f"the kernel refused {overtaken}"
    assert sum(flow.lost for flow in flows) == 0, f"lost: {[flow.lost for flow in flows]}"


def _watched(bed: Bed, fault: Fault, patience: float) -> Healing:
    limit = fault.limit * FACTOR + fault.slow * SLOWER
    assert fault.question is not None
    with Watch(fault.question(bed)) as watch:
        start = time.monotonic()
        start = fault.do(bed) or start
        if fault.calm:
            time.sleep(REST)
        else:
            watch.wait(limit + patience)
    assert not watch.failure, watch.failure
    # What has it happen is a program that itself takes a while to start.
    start = max(start, watch.sound)
    return Healing(
        name=fault.name,
        took=max(0.0, watch.healed - start) if watch.is_whole else None,
        limit=0.0 if fault.calm else limit,
        broken=watch.broken > 0,
        looks=watch.asked,
        log=bed.a.log[-3000:],
    )


def _expected(fault: Fault, bed: Bed, moved: Moved) -> None:
    """Only counters that this fault moves have moved."""
    for node, rose in zip((bed.a, bed.b), moved, strict=True):
        odd = {name: count for name, count in rose.items() if name not in fault.moves}
        assert not odd, f"{node.name}: /proc/net/xfrm_stat rose, and not by this: {odd}"


def _figures(
    bed: Bed, capture: Capture, flows: Sequence[Flow], it: Healing, moved: Moved
) -> Figures:
    return Figures(
        setting=bed.setting.name,
        name=it.name,
        clear=sum(capture.clear().values()),
        sends=sum(flow.attempts for flow in flows),
        refused=sum(sum(flow.refused.values()) for flow in flows),
        seconds=max(flow.ended for flow in flows) - min(flow.began for flow in flows),
        lost=sum(flow.lost for flow in flows),
        pause=max(flow.longest_pause for flow in flows),
        healed=it.took,
        limit=it.limit,
        moved=moved,
    )


def table(figures: list[Figures]) -> str:
    """The rows as text."""
    wide = max(len(one.name) for one in figures)
    lines = [
        f"{'':{wide}}  clear  sends (refused)   in s    lost  pause  healed  limit"
        f" (a real machine's, times {FACTOR:g})  xfrm_stat: a's | its peer's"
    ]
    setting = ""
    for one in figures:
        if one.setting != setting:
            setting = one.setting
            lines.append(f"-- {setting}")
        refused = f"({one.refused})"
        healed = "  -  " if one.healed is None else f"{one.healed:5.2f}"
        healed += f"{one.limit:8.1f}" if one.limit else "       -"
        lines.append(
            f"{one.name:{wide}}  {one.clear:5}  {one.sends:6}{refused:>9} {one.seconds:6.1f}"
            f" {one.lost:7} {one.pause:6.2f}   {healed}  {_shown(one.moved)}"
        )
    return "\n".join(lines)


def _shown(moved: Moved) -> str:
    return " | ".join(
        ", ".join(f"{name.removeprefix('Xfrm')} {count}" for name, count in sorted(rose.items()))
        or "-"
        for rose in moved
    )
