"""When a process began, whatever the clock is set to, and whoever has its pid later."""

import functools
from pathlib import Path

BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


def began(pid: int) -> int | None:
    """When a process began, in clock ticks since the boot (proc_pid_stat(5)); None once ended."""
    try:
        # They are behind the name, which may hold anything.
        fields = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(") ")[2].split()
    except OSError:
        return None
    return None if not fields or fields[0] in "ZX" else int(fields[19])


def birth(pid: int) -> str:
    """What tells a process from all others, of earlier boots, too; "" once it has ended.

    Its start by the clock does not: the kernel tells it by the clock of now, so that each time the
    clock is set it is another one.
    """
    ticks = began(pid)
    return "" if ticks is None else f"{_boot()}-{pid}-{ticks}"


@functools.cache
def _boot() -> str:
    try:
        return BOOT_ID.read_text().strip()
    except OSError:
        # Hidden from a container; what its pid and its ticks say is left.
        return ""
