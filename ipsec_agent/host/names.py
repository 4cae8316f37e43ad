"""Names of hosts, resolved as this VM resolves them, within a deadline."""

import contextlib
import socket
import threading
import time
from collections.abc import Iterable, Mapping

DEADLINE = 3.0
"""Seconds that all names together may take; the resolver itself waits longer (resolv.conf(5))."""

MOST = 16
"""Names that are asked for; each is a thread while it waits."""


def resolve(names: Iterable[str], *, deadline: float = DEADLINE) -> Mapping[str, tuple[str, ...]]:
    """The addresses of each name, none of one that has none or whose answer is late.

    Args:
        deadline: in seconds, for all of them together.
    """
    wanted = tuple(dict.fromkeys(names))
    found: dict[str, tuple[str, ...]] = {}
    # Whoever is late waits for the resolver alone, and keeps nobody from ending.
    threads = [
        threading.Thread(target=_look_up, args=(name, found), daemon=True) for name in wanted[:MOST]
    ]
    for thread in threads:
        thread.start()
    end = time.monotonic() + deadline
    for thread in threads:
        thread.join(max(0.0, end - time.monotonic()))
    answered = dict(found)
    return {name: answered.get(name, ()) for name in wanted}


def _look_up(name: str, found: dict[str, tuple[str, ...]]) -> None:
    # UnicodeError: what cannot be a name of the DNS.
    with contextlib.suppress(OSError, UnicodeError):
        answers = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
        found[name] = tuple(dict.fromkeys(str(answer[4][0]) for answer in answers))
