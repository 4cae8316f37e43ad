"""The control socket, the caller's end. Without asyncio, so that a verb starts at once."""

import json
import socket
import time
from typing import Any

from ipsec_agent.errors import ControlError

MAX_ANSWER = 64 * 1024 * 1024
"""Bytes of the longest answer; the status of 1,000 peers is about 0.3 MB."""


AGAIN = 0.05
"""Seconds after which a caller whom the agent did not take yet tries again."""


class NotRunningError(ControlError):
    """No agent answers on the socket."""


def ask(path: str, verb: str, *, deadline: float = 10.0, **arguments: object) -> dict[str, Any]:
    """Send one request and return the answer.

    Args:
        deadline: seconds for each wait.

    Raises:
        NotRunningError: no agent answers there.
        ControlError: not allowed, too late, malformed, or refused by the agent.
    """
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as channel:
        channel.settimeout(deadline)
        try:
            _connect(channel, path, time.monotonic() + deadline)
            channel.sendall(json.dumps({"verb": verb, **arguments}).encode() + b"\n")
            line = _line(channel)
        except (FileNotFoundError, NotADirectoryError, ConnectionError) as error:
            raise NotRunningError(
                f"no agent is running: nothing answers on {path}",
                hint="start it (`systemctl start ipsec-agent.target`, with BOSH and monit `monit"
                " start ipsec`), or give its socket with --socket PATH",
            ) from error
        except PermissionError as error:
            raise ControlError(
                f"no permission to use {path}", hint="run this as root, or with sudo"
            ) from error
        except TimeoutError as error:
            raise ControlError(
                f"the agent on {path} did not answer within {deadline:g} s",
                hint="it is busy or stopped by a signal; see its log",
            ) from error
        except OSError as error:
            raise ControlError(f"cannot use {path}: {error.strerror or error}") from error
    return _answer(line)


def _connect(channel: socket.socket, path: str, end: float) -> None:
    """Connect; where more callers come than the agent takes at once, wait until it has taken them.

    Args:
        end: on the monotonic clock, when it is given up.

    Raises:
        OSError: nothing answers there, or TimeoutError: it was given up.
    """
    while True:
        try:
            return channel.connect(path)
        except BlockingIOError:
            # With a deadline connect(2) does not wait by itself (unix(7), EAGAIN).
            if time.monotonic() >= end:
                raise TimeoutError from None
            time.sleep(AGAIN)


def _line(channel: socket.socket) -> bytes:
    received = bytearray()
    while not received.endswith(b"\n"):
        part = channel.recv(65536)
        if not part or len(received) > MAX_ANSWER:
            raise ControlError("the agent's answer broke off", hint="see its log")
        received += part
    return bytes(received)


def _answer(line: bytes) -> dict[str, Any]:
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise ControlError("the agent's answer is not JSON", hint="see its log") from error
    if not isinstance(answer, dict):
        raise ControlError("the agent's answer is not an object", hint="see its log")
    if not answer.get("ok"):
        raise ControlError(
            str(answer.get("error", "refused")),
            complaints=list(map(str, answer.get("complaints") or ())),
            hint=str(answer.get("hint", "")),
        )
    return answer
