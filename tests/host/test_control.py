"""The control socket, both ends, over a real UNIX socket."""

import asyncio
import json
import os
import socket
import stat
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.errors import ConfigError, ControlError
from ipsec_agent.host.control import MAX_REQUEST, serve_control
from ipsec_agent.host.control_client import NotRunningError, ask


async def status(_request: dict[str, Any]) -> dict[str, Any]:
    """A verb that reads."""
    return {"status": {"state": "running"}}


async def reload(_request: dict[str, Any]) -> dict[str, Any]:
    """A verb that is refused."""
    raise ConfigError("the config is refused", complaints=["line 3"], hint="mend it")


def raw(path: Path, line: bytes) -> dict[str, Any]:
    """Send bytes as they are."""
    with socket.socket(socket.AF_UNIX) as channel:
        channel.settimeout(10)
        channel.connect(str(path))
        channel.sendall(line)
        answer: dict[str, Any] = json.loads(channel.makefile().readline())
        return answer


async def test_status(tmp_path: Path) -> None:
    """A request is answered, the socket is closed to others, and goes with the server."""
    path = tmp_path / "control.sock"
    path.write_text("left by a crash")
    async with serve_control(path, {"status": status}, {}):
        answer = await asyncio.to_thread(ask, str(path), "status")
        mode = stat.S_IMODE(os.stat(path).st_mode)  # noqa: PTH116 - a test's file

    assert answer["status"] == {"state": "running"}
    assert mode == 0o660
    assert not path.exists()


async def test_refusal_carries_the_complaints(tmp_path: Path) -> None:
    """A refused reload says every complaint and the hint."""
    path = tmp_path / "control.sock"
    async with serve_control(path, {}, {"reload": reload}):
        with pytest.raises(ControlError) as caught:
            await asyncio.to_thread(ask, str(path), "reload")

    assert caught.value.message == "line 3\nthe config is refused"
    assert caught.value.hint == "mend it"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "the request is not JSON"),
        (b"[1]\n", "the request names no verb that this agent knows"),
        (b'{"verb": "fly"}\n', "the request names no verb that this agent knows"),
        (b"x" * (2 * MAX_REQUEST) + b"\n", f"the request is longer than {MAX_REQUEST} bytes"),
        (b"[" * 50_000 + b"\n", "the request is not JSON"),
    ],
)
async def test_malformed(tmp_path: Path, line: bytes, error: str) -> None:
    """What is malformed is refused with a sentence, and the server lives on."""
    path = tmp_path / "control.sock"
    async with serve_control(path, {"status": status}, {}):
        answer = await asyncio.to_thread(raw, path, line)
        after = await asyncio.to_thread(ask, str(path), "status")

    assert (answer["ok"], answer["error"]) == (False, error)
    assert after["ok"]


def test_nobody_there(tmp_path: Path) -> None:
    """Without an agent the caller is told so."""
    with pytest.raises(NotRunningError, match="no ipsec-agent runs here"):
        ask(str(tmp_path / "none.sock"), "status")
