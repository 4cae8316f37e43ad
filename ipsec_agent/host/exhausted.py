"""What this VM or process has too little of: which errors say so, and what to do about it."""

import errno

from ipsec_agent.errors import KernelError

MORE_FILES = (
    "raise the limit of open files: `ulimit -n 65536`, or LimitNOFILE=65536 in the agent's unit"
)

HINTS = {
    errno.EMFILE: MORE_FILES,
    errno.ENFILE: "too many files are open on this machine: see `sysctl fs.file-nr`, and raise"
    " fs.file-max",
    errno.ENOBUFS: "memory for sockets is short: see `free -m` and `dmesg`",
    errno.ENOMEM: "memory is short: see `free -m` and `dmesg`",
}
"""By errno, of what opens a file or a socket (open(2), socket(2), pidfd_open(2))."""

NO_START = "check the program and the number of processes; the agent tries again"
"""What to do where a program does not start, and nothing of these is short."""


def is_exhausted(error: OSError) -> bool:
    """Whether it may work later, without anything else being wrong."""
    return error.errno in HINTS


def remedy(error: OSError, otherwise: str = "") -> str:
    """What to do about an error.

    Args:
        otherwise: what to do where nothing is short.
    """
    return HINTS.get(error.errno or 0, otherwise)


def refused(doing: str, error: OSError, otherwise: str = "") -> KernelError:
    """An error as one sentence.

    Args:
        doing: what failed, such as "cannot capture packets".
        otherwise: what to do where nothing is short.
    """
    return KernelError(
        f"{doing}: {error.strerror or error}",
        code=error.errno or 0,
        hint=remedy(error, otherwise),
    )
