"""The kernel's counters of IPsec packets that went wrong, /proc/net/xfrm_stat."""

from pathlib import Path

from ipsec_agent.errors import KernelError
from ipsec_agent.host.understood import understood

# Not /proc/net: that is the network namespace of the process's first thread.
PATH = Path("/proc/thread-self/net/xfrm_stat")


def stats(path: Path = PATH) -> dict[str, int]:
    """All counters by the kernel's names, as XfrmInNoPols, of this thread's network namespace.

    Meanings: the kernel's Documentation/networking/xfrm_proc.rst.

    Raises:
        KernelError: there are none (the kernel lacks CONFIG_XFRM_STATISTICS).
    """
    try:
        text = path.read_text(encoding="ascii", errors="replace")
    except OSError as error:
        raise KernelError(
            f"cannot read {path}: {error.strerror}",
            code=error.errno or 0,
            hint="this kernel counts no IPsec errors (CONFIG_XFRM_STATISTICS)",
        ) from error
    with understood(_odd):
        return {name: int(count) for name, count in map(str.split, text.splitlines())}


def _odd(error: Exception) -> KernelError:
    return KernelError(f"cannot understand the kernel's counters of IPsec packets: {error}")
