"""What systemd is told of the agent (sd_notify(3)); without systemd, nothing."""

import os
import socket
import time


def notify(*assignments: str) -> None:
    """Send assignments such as `READY=1` in one datagram; harmless where nobody listens."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address:
        return
    if address.startswith("@"):
        address = "\0" + address[1:]
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
        try:
            channel.connect(address)
            channel.send("\n".join(assignments).encode())
        except OSError:
            # A manager that has gone away must not take IPsec with it.
            return


def notify_reloading() -> None:
    """Say that a reload began; the two assignments must be in one datagram (sd_notify(3))."""
    notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def watchdog_interval() -> float | None:
    """Seconds within which systemd wants a sign of life, None where it wants none."""
    usec = os.environ.get("WATCHDOG_USEC", "")
    pid = os.environ.get("WATCHDOG_PID", "")
    if not usec.isdigit() or (pid and pid != str(os.getpid())):
        return None
    return int(usec) / 1_000_000
