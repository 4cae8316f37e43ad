"""Programs of other packages: found, started, and awaited no longer than a deadline."""

import asyncio
import contextlib
import os
import shutil
import signal

from ipsec_agent.host import own_time

PLACES = "/usr/sbin:/sbin:/usr/bin:/bin"
"""Searched after $PATH, which lacks some of them in a job of BOSH's."""


def find_program(name: str) -> str | None:
    """The path of a program, None where it is not installed."""
    return shutil.which(name, path=f"{os.environ.get('PATH', '')}:{PLACES}")


async def start_program(*command: str, keep: int | None = None) -> asyncio.subprocess.Process:
    """Start a program that speaks English, and leads a session of its own.

    Args:
        keep: a descriptor that it inherits.

    Raises:
        OSError: it cannot be started.
    """
    return await asyncio.create_subprocess_exec(
        *command,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "LC_ALL": "C"},
        pass_fds=() if keep is None else (keep,),
        start_new_session=True,
    )


async def outcome(process: asyncio.subprocess.Process, deadline: float) -> tuple[int, str, str]:
    """Exit status, output and complaint of a program, once it has ended.

    Whatever happens, it has ended then, with what it has started.

    Raises:
        TimeoutError: it takes longer than this process's own time allows (own_time.py).
    """
    try:
        async with own_time.timeout(deadline):
            out, complaint = await process.communicate()
    finally:
        if process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            await process.wait()
    return (
        process.returncode or 0,
        out.decode(errors="replace"),
        complaint.decode(errors="replace"),
    )
