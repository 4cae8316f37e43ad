"""Nobody but root looks into the agent's memory, where the private key is (prctl(2))."""

import ctypes
import os

from ipsec_agent.errors import StartError

PR_SET_DUMPABLE = 4
"""linux/prctl.h"""


def forbid_inspection() -> None:
    """Have the kernel make no core of this process; it ends with the next execve(2).

    Raises:
        StartError: the kernel refuses.
    """
    if ctypes.CDLL(None, use_errno=True).prctl(PR_SET_DUMPABLE, 0, 0, 0, 0) != 0:
        raise StartError(
            f"the kernel refuses PR_SET_DUMPABLE: {os.strerror(ctypes.get_errno())}",
            hint="a core of the agent could hold the private key; see what filters system calls",
        )
