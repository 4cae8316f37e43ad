"""Requests to nf_tables: whole answers, refusals, deadlines, and transactions of one batch."""

import errno
import itertools
import struct
from collections.abc import Callable
from typing import Any

import pytest

from ipsec_agent.host import nft_wire
from ipsec_agent.host.nft_wire import (
    ACK,
    DUMP,
    DUMP_INTERRUPTED,
    NLMSG_DONE,
    NLMSG_ERROR,
    REQUEST,
    SUBSYSTEM,
    Channel,
    InterruptedDumpError,
    attribute,
    attributes,
    message,
    parts,
)

MULTI = 0x2
RULE = attribute(2, b"out\0")


class Wire:
    """A socket whose answers are given; what was sent is kept."""

    def __init__(self, *answers: bytes) -> None:
        self.answers, self.sent = list(answers), list[bytes]()
        self.closed = False

    def send(self, data: bytes) -> int:
        """Keep it."""
        self.sent.append(data)
        return len(data)

    def recv(self, _size: int) -> bytes:
        """The next answer.

        Raises:
            TimeoutError: there is none.
        """
        if not self.answers:
            raise TimeoutError("timed out")
        return self.answers.pop(0)

    def close(self) -> None:
        """Remember it."""
        self.closed = True

    def bind(self, _address: object) -> None:
        """Do nothing."""

    def settimeout(self, seconds: float) -> None:
        """Only what is left."""
        assert 0 < seconds <= nft_wire.DEADLINE

    def setsockopt(self, _level: int, option: int, _value: int) -> None:
        """As in a user namespace: what would be more than allowed is refused."""
        if option == nft_wire._SNDBUFFORCE:
            raise PermissionError(errno.EPERM, "no")


@pytest.fixture
def wire(monkeypatch: pytest.MonkeyPatch) -> Callable[..., Wire]:
    """Gives the next channel a socket with these answers."""

    def made(*answers: bytes) -> Wire:
        one = Wire(*answers)
        monkeypatch.setattr("ipsec_agent.host.nft_wire.socket.socket", lambda *_: one)
        return one

    return made


def rule(number: int, flags: int = MULTI, family: int = 1) -> bytes:
    """The kernel tells of a rule."""
    return message(SUBSYSTEM << 8 | 6, flags, number, RULE, family, 0)


def end(number: int, flags: int = MULTI) -> bytes:
    """The end of a dump."""
    return struct.pack("=IHHIIi", 20, NLMSG_DONE, flags, number, 0, 0)


def error(number: int, code: int) -> bytes:
    """A refusal, or with 0 an acknowledgement."""
    return struct.pack("=IHHIIi16x", 36, NLMSG_ERROR, 0, number, 0, -code)


def test_a_whole_dump(wire: Callable[..., Wire]) -> None:
    """Of several datagrams, without what belongs to an earlier request."""
    one = wire(rule(1) + rule(1, family=5), rule(0) + rule(1), end(1))

    with Channel() as channel:
        found = list(channel.ask(7, b"", 1, dump=True))

    assert found == [(1, RULE), (5, RULE), (1, RULE)]
    assert [(kind, flags) for kind, flags, _, _ in parts(one.sent[0])] == [
        (SUBSYSTEM << 8 | 7, REQUEST | DUMP)
    ]
    assert one.closed


@pytest.mark.parametrize("last", [rule(1, MULTI | DUMP_INTERRUPTED), end(1, DUMP_INTERRUPTED)])
def test_an_interrupted_dump_is_no_answer(wire: Callable[..., Wire], last: bytes) -> None:
    """Neither where a part is marked, nor where only the end is."""
    wire(rule(1) + last, end(1))

    with Channel() as channel, pytest.raises(InterruptedDumpError):
        list(channel.ask(7, b"", 1, dump=True))


def test_one_thing(wire: Callable[..., Wire]) -> None:
    """It has no end that would be waited for; that there is none is told from a refusal."""
    wire(rule(1, 0), error(2, errno.ENOENT), error(3, errno.EPERM))

    with Channel() as channel:
        assert list(channel.ask(1, b"", 1)) == [(1, RULE)]
        with pytest.raises(FileNotFoundError):
            list(channel.ask(1, b"", 1))
        with pytest.raises(PermissionError):
            list(channel.ask(1, b"", 1))


def test_a_silent_kernel(wire: Callable[..., Wire], monkeypatch: pytest.MonkeyPatch) -> None:
    """No answer, and answers without end: both end with the deadline."""
    wire(rule(1))
    with Channel() as channel, pytest.raises(TimeoutError):
        list(channel.ask(7, b"", 1, dump=True))

    clock = itertools.count()
    monkeypatch.setattr("ipsec_agent.host.nft_wire.time.monotonic", lambda: float(next(clock)))
    wire(*(rule(1) for _ in range(100)))
    with Channel() as channel, pytest.raises(TimeoutError):
        list(channel.ask(7, b"", 1, dump=True))


def test_a_transaction(wire: Callable[..., Wire]) -> None:
    """One datagram, from begin to end; the last change is acknowledged."""
    one = wire(error(2, 0))

    with Channel() as channel:
        channel.perform([(0, 0x400, RULE), (6, 0xC00, RULE)])

    (batch,) = one.sent
    assert [(kind & 0xFF, flags) for kind, flags, _, _ in parts(batch)] == [
        (0x10, REQUEST), (0, REQUEST | 0x400), (6, REQUEST | ACK | 0xC00), (0x11, REQUEST),
    ]  # fmt: skip


@pytest.mark.parametrize("refused", [1, 2])
def test_a_refused_transaction(wire: Callable[..., Wire], refused: int) -> None:
    """Whichever of its changes the kernel does not want."""
    wire(error(refused, errno.EINVAL))

    with Channel() as channel, pytest.raises(OSError, match="Invalid argument"):
        channel.perform([(0, 0, RULE), (6, 0, RULE)])


@pytest.mark.parametrize("garbled", [b"\x03\0\1\0", b"\x20\0\1\0abcd"])
def test_garbled_attributes(garbled: bytes) -> None:
    """One that is shorter than its header, or longer than what holds it."""
    with pytest.raises(ValueError, match="an attribute of"):
        list(attributes(attribute(1, b"fine") + garbled))


def test_garbled_messages() -> None:
    """They end the datagram."""
    odd: Any = struct.pack("=IHHII", 3, 0, 0, 0, 0)
    assert list(parts(end(1)[:-1])) == []
    assert len(list(parts(end(1) + odd + end(1)))) == 1
