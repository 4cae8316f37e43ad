"""What tells the time beside the clock: the hardware clock, a file of our own, our own program."""

import contextlib
from datetime import UTC, datetime
from pathlib import Path

from ipsec_agent.core.clock import ClockFacts, doubt
from ipsec_agent.core.config import Config
from ipsec_agent.errors import AgentError
from ipsec_agent.host.files import open_regular, write_whole

RTC = Path("/sys/class/rtc/rtc0/since_epoch")
"""Seconds since the epoch, where the hardware clock is on UTC (the kernel's rtc class)."""

NAME = "time"
"""Of the file in the state directory."""

LARGEST = 32

LATEST = datetime.max.replace(tzinfo=UTC).timestamp() - 1
"""Seconds since the epoch; what is later is no time that anybody can write down."""


class ClockReader:
    """The time as others know it."""

    def __init__(self, config: Config) -> None:
        self._file = Path(config.agent.state_dir) / NAME
        self._saved, self._ours = _seconds(self._file), False
        self._built = _written(Path(__file__))
        self._begins: float | None = None
        self._ends: float | None = None
        self.adopt(config)

    def adopt(self, config: Config) -> None:
        """Take another config, whose certificates hold at other times."""
        certificates = config.certificates
        self._begins = max((one.not_before.timestamp() for one in certificates), default=None)
        self._ends = min((one.not_after.timestamp() for one in certificates), default=None)

    def read(self) -> ClockFacts:
        """What is known now."""
        return ClockFacts(
            built=self._built,
            rtc=_seconds(RTC),
            saved=self._saved,
            ours=self._ours,
            begins=self._begins,
            ends=self._ends,
        )

    def save(self, now: float) -> None:
        """Write down what the clock says."""
        self._saved, self._ours = now, True
        # As with the peers: a full disk must not stop IPsec.
        with contextlib.suppress(AgentError):
            write_whole(self._file, f"{now:.0f}\n", mode=0o600)


def clock_doubt(config: Config, now: float) -> str:
    """Why this VM's clock is clearly wrong, as a clause; "" where it is not.

    Args:
        now: what the clock says, seconds since the epoch.
    """
    return doubt(now, ClockReader(config).read())


def _seconds(path: Path) -> float | None:
    try:
        with open_regular(path) as file:
            seconds = float(int(file.read(LARGEST) or b""))
    except (OSError, ValueError, OverflowError):
        return None
    return seconds if 0 <= seconds <= LATEST else None


def _written(path: Path) -> float | None:
    try:
        return path.stat().st_mtime
    except OSError:
        return None
