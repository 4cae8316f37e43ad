"""The config's file while an agent runs: compared with the config in force, and judged again."""

import stat
import time
from collections.abc import Callable
from pathlib import Path

from ipsec_agent.config_file import Loaded, accepted, load
from ipsec_agent.core.config_state import ConfigState
from ipsec_agent.errors import AgentError, ConfigError

AGAIN = 60.0
"""Seconds after which what is refused is judged again: whose file it is may have changed, too."""

UNSETTLED = 1.0
"""Seconds after a change in which another one may leave the same times: the kernel's clock for them
ticks at 100 Hz at the least, and some file systems keep whole seconds."""

Signature = tuple[int, ...]


class ConfigWatch:
    """A config's file, of which it is asked from time to time what became of it.

    Why the newest reload was refused is known until one succeeds, or the file is what is in force.
    An unchanged file costs one stat(2). It is read again where that differs, where it had changed
    just before it was read, and each minute where it is refused.

    Args:
        path: of the file. What is no file, such as a pipe, is not looked at.
        loaded: what is in force.
        clock: seconds since the epoch.
    """

    def __init__(
        self, path: Path, loaded: Loaded, *, clock: Callable[[], float] = time.time
    ) -> None:
        self._path = path
        self._clock = clock
        self._signature: Signature | None = None
        self._judged = 0.0
        self.changed = False
        self.refused = self.reload_refused = self.reload_hint = ""
        self.adopt(loaded)

    def adopt(self, loaded: Loaded) -> None:
        """Take what was read from the file just now as what is in force."""
        self._in_force = loaded
        # The file may be another one by now.
        self._signature = None
        self.changed, self.refused, self.reload_refused = False, "", ""

    def refuse(self, because: str, hint: str = "") -> None:
        """A reload was refused, and what is in force stays so.

        Args:
            hint: what to do, "" where the file is to be corrected.
        """
        self.reload_refused, self.reload_hint = because, hint
        self._signature = None

    @property
    def state(self) -> ConfigState:
        """What is known of the file."""
        return ConfigState(
            str(self._path), self.changed, self.refused, self.reload_refused, self.reload_hint
        )

    def look(self) -> bool:
        """Compare and judge the file; whether that changed what is known of it."""
        known = (self.changed, self.refused, self.reload_refused)
        now = self._clock()
        signature = _signature(self._path)
        if signature != self._signature or self._due(now):
            settled = now - signature[-1] / 1e9 >= UNSETTLED
            self._signature, self._judged = signature if settled else None, now
            if signature == IRREGULAR:
                self.changed, self.refused = False, ""
            else:
                self._judge()
        return (self.changed, self.refused, self.reload_refused) != known

    def _due(self, now: float) -> bool:
        return bool(self.refused) and now - self._judged >= AGAIN

    def _judge(self) -> None:
        reload_refused = self.reload_refused
        try:
            loaded = load(self._path, known=self._in_force, outdated=accepted, apart=True)
        except ConfigError as error:
            self.changed, self.refused = False, first_complaint(error)
            return
        self.changed, self.refused = loaded.digest != self._in_force.digest, ""
        # Another reload may be refused while this one reads what was there before.
        if not self.changed and self.reload_refused == reload_refused:
            self.reload_refused = ""


IRREGULAR: Signature = (-1,)
"""Of what is there and no file: to read it would take it from somebody."""


def _signature(path: Path) -> Signature:
    """Equal while nobody changes the file or who may write it; an errno where it is gone."""
    try:
        found = path.stat()
    except OSError as error:
        return (error.errno or 0,)
    if not stat.S_ISREG(found.st_mode):
        return IRREGULAR
    return (found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns)


def first_complaint(error: AgentError) -> str:
    """Why a config is refused, in one line, which names the file's line where one is wrong."""
    complaints = error.complaints
    return next((text for text in complaints if ": warning: " not in text), error.message)
