"""Settings of the kernel that take IPsec from a link's packets, as /proc/sys has them.

No event tells of them. Seen on kernel 6.18: of a link's setting and that of `all` one is
enough; `default` concerns links that come later, and `lo` none but itself.
"""

import math
import time
from collections.abc import Callable, Iterator
from pathlib import Path

from ipsec_agent.core.switch import Switch, SwitchKind

# Of the network namespace of whoever reads it (proc_sys.c), this thread's.
SYSCTL = Path("/proc/sys")

SETTINGS = (
    (4, SwitchKind.DISABLE_XFRM),
    (4, SwitchKind.DISABLE_POLICY),
    # There is no disable_xfrm of IPv6.
    (6, SwitchKind.DISABLE_POLICY),
)

OTHERS = frozenset({"default", "lo"})


class SwitchesReader:
    """Reads what is switched off.

    Args:
        lasts: seconds for which a reading without any is kept.
    """

    def __init__(self, lasts: Callable[[], float], sysctl: Path = SYSCTL) -> None:
        self._lasts = lasts
        self._sysctl = sysctl
        self._found: tuple[Switch, ...] = ()
        self._read = -math.inf

    def get(self) -> tuple[Switch, ...]:
        """The settings that are not 0, of every link and of `all`."""
        if self._found or time.monotonic() - self._read >= self._lasts():
            self._read = time.monotonic()
            self._found = tuple(self._look())
        return self._found

    def outdate(self) -> None:
        """Keep no reading."""
        self._read = -math.inf

    def _look(self) -> Iterator[Switch]:
        for family, kind in SETTINGS:
            # A family that this kernel does not have has no such directory, and a link may go.
            for path in self._sysctl.glob(f"net/ipv{family}/conf/*/{kind}"):
                link = path.parent.name
                if link not in OTHERS and _is_set(path):
                    yield Switch(kind, family, link, str(path.relative_to(self._sysctl)))


def _is_set(path: Path) -> bool:
    try:
        return path.read_text(errors="replace").strip() not in {"", "0"}
    except OSError:
        return False
