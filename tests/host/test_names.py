"""Names are resolved within a deadline, whatever the resolver does."""

import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import pytest

from ipsec_agent.host.names import MOST, resolve


def answering(monkeypatch: pytest.MonkeyPatch, answer: Callable[[str], list[str]]) -> None:
    """Have the resolver answer so."""

    def getaddrinfo(name: str, *_rest: Any, **_more: Any) -> list[Any]:
        return [(0, 0, 0, "", (address, 0)) for address in answer(name)]

    monkeypatch.setattr("ipsec_agent.host.names.socket.getaddrinfo", getaddrinfo)


def test_the_real_one() -> None:
    """What this machine's own files tell, and what is no name at all."""
    found = resolve(["localhost", "x" * 64 + ".example", "a..b", "\0"])

    assert {"127.0.0.1", "::1"} & set(found["localhost"])
    assert [found["x" * 64 + ".example"], found["a..b"], found["\0"]] == [(), (), ()]


def test_each_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """All addresses of a name, each once; a name that is not known has none."""

    def answer(name: str) -> list[str]:
        if name == "lost.example":
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return ["10.0.0.9", "fd00::9", "10.0.0.9"]

    answering(monkeypatch, answer)

    assert resolve(["blob.example", "lost.example", "blob.example"]) == {
        "blob.example": ("10.0.0.9", "fd00::9"),
        "lost.example": (),
    }


def test_late(monkeypatch: pytest.MonkeyPatch) -> None:
    """A resolver that hangs is not waited for, and hides no answer of others."""
    released = threading.Event()

    def answer(name: str) -> list[str]:
        if name.startswith("slow"):
            released.wait(30)
        return ["10.0.0.9"]

    answering(monkeypatch, answer)
    begun = time.monotonic()
    try:
        found = resolve(["slow.example", "slow2.example", "blob.example"], deadline=0.3)
    finally:
        released.set()

    assert time.monotonic() - begun < 5
    assert found == {"slow.example": (), "slow2.example": (), "blob.example": ("10.0.0.9",)}


def test_many(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many only the first are asked for; the others are told as unknown."""
    asked: list[str] = []

    def answer(name: str) -> list[str]:
        asked.append(name)
        return ["10.0.0.9"]

    answering(monkeypatch, answer)

    found = resolve(f"{number}.example" for number in range(100))

    assert (len(found), len(asked)) == (100, MOST)
