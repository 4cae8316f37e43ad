"""The control socket, both ends, over a real UNIX socket."""

import asyncio
import contextlib
import json
import os
import socket
import stat
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest

from ipsec_agent.errors import ConfigError, ControlError
from ipsec_agent.host import control
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


NOBODY = """
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as channel:
    channel.settimeout(10)
    os.chdir(sys.argv[1])  # a directory that only root may enter
    os.setresgid(65534, 65534, 65534)
    os.setgroups([])
    os.setresuid(65534, 65534, 65534)
    try:
        channel.connect(sys.argv[2])
    except PermissionError as error:
        sys.exit(print(repr(error)))
    channel.sendall(json.dumps({"verb": sys.argv[3]}).encode() + b"\\n")
    print(channel.makefile().readline())
"""


def as_nobody(path: Path, verb: str) -> str:
    """What a process of the user nobody is answered."""
    return subprocess.run(
        [sys.executable, "-c", NOBODY, str(path.parent), path.name, verb],
        check=True,
        capture_output=True,
        text=True,
        timeout=30,
    ).stdout


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

    assert caught.value.message == "the config is refused"
    assert caught.value.complaints == ("line 3",)
    assert caught.value.hint == "mend it"


@pytest.mark.parametrize(
    ("line", "error"),
    [
        (b"hello\n", "the request is not JSON"),
        (b"[1]\n", "the request has no verb that this agent knows"),
        (b'{"verb": "fly"}\n', "the request has no verb that this agent knows"),
        (b"x" * (2 * MAX_REQUEST) + b"\n", f"the request is longer than {MAX_REQUEST} bytes"),
        (b"[" * 50_000 + b"\n", "the request is not JSON"),
        (b'{"verb": ' + b"7" * 5000 + b"}\n", "the request is not JSON"),
        (b'{"verb": "\xff"}\n', "the request is not JSON"),
    ],
)
async def test_malformed(tmp_path: Path, line: bytes, error: str) -> None:
    """What is malformed is refused with a sentence, and the server lives on."""
    path = tmp_path / "control.sock"
    async with serve_control(path, {"status": status}, {}):
        answer = await asyncio.to_thread(raw, path, line)
        after = await asyncio.to_thread(ask, str(path), "status")

    assert (answer["ok"], answer["error"], answer["hint"]) == (False, error, "")
    assert after["ok"]


async def broken(_request: dict[str, Any]) -> dict[str, Any]:
    """A verb with a bug of its own."""
    raise TimeoutError


async def test_a_bug_in_a_verb_is_not_blamed_on_the_caller(tmp_path: Path) -> None:
    """A verb that breaks ends the answer; nobody says that the request came too late."""
    path = tmp_path / "control.sock"
    loop = asyncio.get_running_loop()
    unhandled: list[Any] = []
    loop.set_exception_handler(lambda _loop, context: unhandled.append(context.get("exception")))
    async with serve_control(path, {"broken": broken, "status": status}, {}):
        with pytest.raises(ControlError, match="broke off"):
            await asyncio.to_thread(ask, str(path), "broken")
        after = await asyncio.to_thread(ask, str(path), "status")

    assert after["ok"]
    assert [type(error) for error in unhandled] == [TimeoutError]


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become another user")
async def test_another_user(tmp_path: Path) -> None:
    """Another user who may connect reads the status, and changes nothing."""
    tmp_path.chmod(0o711)  # noqa: ASYNC240 - a file in memory, no wait
    path = tmp_path / "control.sock"
    called = []

    async def stop(_request: dict[str, Any]) -> dict[str, Any]:
        called.append("stop")
        return {}

    async with serve_control(path, {"status": status}, {"stop": stop}):
        kept_out = await asyncio.to_thread(as_nobody, path, "status")
        path.chmod(0o666)
        reads = await asyncio.to_thread(as_nobody, path, "status")
        changes = await asyncio.to_thread(as_nobody, path, "stop")

    assert "PermissionError" in kept_out
    assert json.loads(reads)["status"] == {"state": "running"}
    assert json.loads(changes)["error"] == "stop is for root only"
    assert called == []


@pytest.mark.parametrize("taken", [True, False])
def test_more_callers_than_are_taken(tmp_path: Path, taken: bool) -> None:
    """A caller waits until it is its turn, until its deadline at the latest."""
    path = str(tmp_path / "s")
    with socket.socket(socket.AF_UNIX) as listener, contextlib.ExitStack() as before:
        listener.bind(path)
        listener.listen(0)
        first = before.enter_context(socket.socket(socket.AF_UNIX))
        first.connect(path)

        def answer() -> None:
            time.sleep(0.3)
            channels = [before.enter_context(listener.accept()[0]) for _ in range(2)]
            channels[-1].sendall(b'{"ok": true}\n')

        if taken:
            thread = threading.Thread(target=answer)
            thread.start()
            assert ask(path, "status", deadline=20)["ok"]
            thread.join()
        else:
            with pytest.raises(ControlError, match="did not answer within"):
                ask(path, "status", deadline=0.2)


def test_nobody_there(tmp_path: Path) -> None:
    """Without an agent the caller is told so."""
    with pytest.raises(NotRunningError, match="no agent is running"):
        ask(str(tmp_path / "none.sock"), "status")
    (tmp_path / "run").touch()
    with pytest.raises(NotRunningError, match="no agent is running"):
        ask(str(tmp_path / "run" / "none.sock"), "status")


async def test_a_caller_that_says_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is told that it is too late, and keeps nobody from being answered meanwhile."""
    monkeypatch.setattr(control, "DEADLINE", 3.0)
    path = tmp_path / "control.sock"

    async with serve_control(path, {"status": status}, {}):
        silent = asyncio.create_task(asyncio.to_thread(raw, path, b'{"verb": "sta'))
        answer = await asyncio.to_thread(ask, str(path), "status")
        assert not silent.done()
        refused = await silent

    assert answer["ok"] is True
    assert refused == {"ok": False, "error": "the request came too late", "hint": ""}


async def test_a_caller_that_hears_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An answer that nobody reads is given up, and the connection closed."""
    monkeypatch.setattr(control, "DEADLINE", 0.5)
    path = tmp_path / "control.sock"
    size = 32 << 20

    async def long(_request: dict[str, Any]) -> dict[str, Any]:
        return {"status": "x" * size}

    def heard() -> int:
        with socket.socket(socket.AF_UNIX) as channel:
            channel.settimeout(10)
            channel.connect(str(path))
            channel.sendall(b'{"verb": "status"}\n')
            time.sleep(2)
            return sum(len(part) for part in iter(lambda: channel.recv(1 << 20), b""))

    async with serve_control(path, {"status": long}, {}):
        assert await asyncio.to_thread(heard) < size


async def test_many_callers_that_say_nothing(tmp_path: Path) -> None:
    """They block nobody: the oldest of them gives way, and is told so."""
    path = tmp_path / "control.sock"
    with contextlib.ExitStack() as stack:
        idle = [stack.enter_context(socket.socket(socket.AF_UNIX)) for _ in range(150)]
        async with serve_control(path, {"status": status}, {}):
            for channel in idle:
                channel.settimeout(10)
                await asyncio.to_thread(channel.connect, str(path))
            began = time.monotonic()
            answer = await asyncio.to_thread(ask, str(path), "status")
            took = time.monotonic() - began
            oldest = json.loads(await asyncio.to_thread(idle[0].recv, 4096))
            idle[-1].sendall(b'{"verb": "status"}\n')
            newest = json.loads(await asyncio.to_thread(idle[-1].recv, 4096))

    assert answer["ok"]
    assert took < 1
    assert oldest["error"] == "the agent has too many callers that say nothing"
    assert newest["ok"]


async def test_many_requests(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that the agent is too busy for are refused at once; the others are answered."""
    monkeypatch.setattr(control, "MAX_CALLERS", 1)
    monkeypatch.setattr(control, "MAX_WAITING", 2)
    path = tmp_path / "control.sock"
    let_go = asyncio.Event()

    async def slow(_request: dict[str, Any]) -> dict[str, Any]:
        await let_go.wait()
        return {"status": {}}

    async def asked() -> str:
        try:
            await asyncio.to_thread(ask, str(path), "status")
        except ControlError as error:
            return error.message
        return "answered"

    async with serve_control(path, {"status": slow}, {}):
        callers = [asyncio.create_task(asked()) for _ in range(4)]
        (refused,), kept = await asyncio.wait(callers, return_when=asyncio.FIRST_COMPLETED)
        let_go.set()
        answers = [await one for one in kept]

    assert refused.result() == "the agent has too many requests to answer"
    assert answers == ["answered"] * 3


@pytest.mark.parametrize(
    "said", [b"no\n", b"[]\n", b"7" * 5000 + b"\n", b"\xff\n", b"[" * 99_999 + b"\n"]
)
def test_an_answer_that_is_none(tmp_path: Path, said: bytes) -> None:
    """Whatever answers on the socket, the caller gets a sentence."""
    path = tmp_path / "control.sock"

    def answer(listener: socket.socket) -> None:
        channel, _ = listener.accept()
        with channel:
            channel.recv(4096)
            channel.sendall(said)

    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(path))
        listener.listen()
        thread = threading.Thread(target=answer, args=(listener,))
        thread.start()
        with pytest.raises(ControlError, match="the agent's answer is not"):
            ask(str(path), "status")
        thread.join(10)
