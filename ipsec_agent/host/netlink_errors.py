"""What the kernel refuses by netlink, and answers that are not understood, as KernelErrors."""

import errno
import os
from collections.abc import Iterator
from contextlib import contextmanager

from ipsec_agent.errors import KernelError
from ipsec_agent.host.exhausted import HINTS
from ipsec_agent.host.understood import NOT_UNDERSTOOD

_HINTS = HINTS | {
    errno.EPERM: "run as root, or with the capability CAP_NET_ADMIN",
    errno.EACCES: "run as root, or with the capability CAP_NET_ADMIN",
    errno.ENODEV: "the link does not exist; it may just be gone",
    errno.ENOENT: "it does not exist; it may just be gone",
    errno.ESRCH: "it does not exist; it may just be gone",
    errno.EEXIST: "it exists already",
    errno.EINTR: "something changes it all the time; the agent tries again",
    errno.EBADMSG: "this agent does not understand the kernel's answer; it tries again",
    errno.EBUSY: "another request is under way; try again",
    errno.ETIMEDOUT: "the kernel or this process is overloaded; the agent tries again",
}
_LACKING = {
    errno.EPROTONOSUPPORT,
    errno.EAFNOSUPPORT,
    errno.EOPNOTSUPP,
    # The family is known, but no part of the kernel serves it.
    errno.ECONNREFUSED,
}


@contextmanager
def translated(doing: str, lacking: str = "") -> Iterator[None]:
    """Turn what a socket and the reading of an answer raise into a KernelError.

    Args:
        doing: what is being done, for the message.
        lacking: the hint for a kernel that does not know this netlink family.
    """
    try:
        yield
    except TimeoutError as error:
        raise _refusal(doing, errno.ETIMEDOUT, lacking) from error
    except OSError as error:
        raise _refusal(doing, error.errno or 0, lacking, error.strerror) from error
    except NOT_UNDERSTOOD as error:
        raise _refusal(doing, errno.EBADMSG, lacking) from error


def _refusal(doing: str, code: int, lacking: str, words: str | None = None) -> KernelError:
    hint = lacking if lacking and code in _LACKING else _HINTS.get(code, "")
    return KernelError(f"{doing}: {words or os.strerror(code)}", code=code, hint=hint)
