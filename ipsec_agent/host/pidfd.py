"""What pins a process, whoever gets its pid later (pidfd_open(2))."""

import errno
import os


def open_pidfd(pid: int) -> int:
    """A descriptor of a process, as pidfd_open(2) gives it.

    Raises:
        ProcessLookupError: there is no such process, or a thread has its pid now.
        OSError: otherwise refused.
    """
    try:
        return os.pidfd_open(pid)
    except OSError as error:
        # Of a thread. A newer kernel says the latter.
        if error.errno in {errno.EINVAL, errno.ENOENT}:
            raise ProcessLookupError(errno.ESRCH, os.strerror(errno.ESRCH)) from error
        raise
