"""What a text makes of nf_tables, tried where it filters nothing: in another network namespace.

A thread that ends afterwards makes the namespace, which needs CAP_SYS_ADMIN (unshare(2)) and ends
with it.
"""

import asyncio
import ctypes
import os
import subprocess
from concurrent.futures import ThreadPoolExecutor

from msgspec import Struct

from ipsec_agent.host.nft_image import Image
from ipsec_agent.host.nft_tables import guard_image
from ipsec_agent.host.nft_wire import Channel

CLONE_NEWNET = 0x40000000


class Trial(Struct, frozen=True):
    """How it went.

    Attributes:
        status: nft's.
        complaint: nft's.
        image: None where no table was made.
    """

    status: int
    complaint: str
    image: Image | None


async def try_text(program: str, descriptor: int, deadline: float) -> Trial:
    """Have nft load a text.

    Args:
        program: nft.
        descriptor: of the file with the text.
        deadline: seconds that nft may take.

    Raises:
        OSError: no namespace can be made, nft cannot be started, or the table cannot be read.
        TimeoutError: nft takes longer.
    """
    loop = asyncio.get_running_loop()
    with ThreadPoolExecutor(1) as thread:
        return await loop.run_in_executor(thread, _try, program, descriptor, deadline)


def _try(program: str, descriptor: int, deadline: float) -> Trial:
    """In a thread of its own, which stays in the namespace that it made."""
    libc = ctypes.CDLL(None, use_errno=True)
    if libc.unshare(CLONE_NEWNET):
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))
    try:
        done = subprocess.run(  # noqa: S603 - nft, by the path that was found
            (program, "-f", f"/proc/self/fd/{descriptor}"),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            env={**os.environ, "LC_ALL": "C"},
            pass_fds=(descriptor,),
            timeout=deadline,
            check=False,
        )
    except subprocess.TimeoutExpired as error:
        raise TimeoutError from error
    image = None
    if done.returncode == 0:
        with Channel() as channel:
            image = guard_image(channel)
    return Trial(done.returncode, done.stderr.decode(errors="replace"), image)
