"""charon ends cleanly, whoever runs it: it tells its peers and takes its policies away."""

import contextlib
from pathlib import Path

from ipsec_agent.errors import CharonError
from ipsec_agent.host.process import find_charon, stop_charon
from ipsec_agent.host.systemd import charon_unit, is_of_unit, stop_unit

DEADLINE = 20.0
"""Seconds that charon has to tell its peers, before it is killed."""

SHIPPED_UNIT = "ipsec-agent-charon.service"

MARGIN = 5.0
"""Seconds more in which systemd says that its unit has ended; and then, before it is killed."""


async def end_charon(vici_socket: Path, conf: Path, deadline: float = DEADLINE) -> bool:
    """End the charon that runs on this strongswan.conf; whether there was one.

    Raises:
        CharonTimeoutError: it does not end, not even by SIGKILL, or a foreign one hangs.
    """
    process = find_charon(vici_socket, conf)
    unit = charon_unit()
    if unit is None and process is not None and is_of_unit(process.pid, SHIPPED_UNIT):
        unit = SHIPPED_UNIT
    if unit is not None:
        # Else one that is killed in the end would be started again. TimeoutStopSec of the unit ends
        # one that hangs; what does not end in time ends below.
        with contextlib.suppress(CharonError):
            await stop_unit(unit, deadline=deadline + MARGIN)
    left = find_charon(vici_socket, conf)
    if left is not None and left.ours:
        await stop_charon(left, deadline if unit is None else MARGIN)
    return process is not None and process.ours
