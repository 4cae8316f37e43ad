"""A capture of what travels between two addresses, on every link (packet(7)).

The kernel runs a filter on each packet: only those of the two addresses come here. ESP, of which
there may be more than anybody can look at, has a socket of its own, where some may be lost. What
is decrypted is not seen again, unless esp4_offload is loaded.
"""

import contextlib
import ctypes
import socket
import struct
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from ipsec_agent.core.model import Address
from ipsec_agent.core.proof import Window
from ipsec_agent.core.wire import ESP, NATT, UDP, Kind, kind_of
from ipsec_agent.host.exhausted import refused

ETH_P_ALL, ETH_P_IP, ETH_P_IPV6 = 0x0003, 0x0800, 0x86DD
SO_ATTACH_FILTER, SO_RCVBUFFORCE = 26, 33
SOL_PACKET, PACKET_STATISTICS, OTHER_HOST = 263, 6, 3
ROOM = 8 << 20
SNAP = 128
"""Bytes of each packet that are looked at."""

IP4, IP6 = 4, 6

# --- the filter: classic BPF (linux/filter.h), on packets that begin with the IP header ----------

LOAD_WORD, LOAD_HALF, LOAD_BYTE = 0x20, 0x28, 0x30
LOAD_WORD_X, LOAD_HALF_X, HEADER_TO_X = 0x40, 0x48, 0xB1
EQUAL, ANY_BIT, RETURN = 0x15, 0x45, 0x06
PROTOCOL = 0x1_0000_0000 - 0x1000
"""Where a filter reads the link's protocol (SKF_AD_OFF + SKF_AD_PROTOCOL)."""

Line = tuple[int, int, str, str] | str
"""Code, operand, where to go if it holds and if not; or the name of a place."""

ESP_, REST, NONE = "esp", "rest", "none"


def program(one: Address, other: Address, *, esp: bool) -> bytes:
    """The filter for what travels between two addresses: only ESP, or all but ESP."""
    four = one.version == IP4
    lines: list[Line] = [
        (LOAD_HALF, PROTOCOL, "", ""),
        (EQUAL, ETH_P_IP if four else ETH_P_IPV6, "", NONE),
        *_ends(one, other, "there"),
        *_ends(other, one, "back"),
        (RETURN, 0, "", ""),
        "matches",
        *(_inside_4() if four else _inside_6()),
        ESP_,
        (RETURN, SNAP if esp else 0, "", ""),
        REST,
        (RETURN, 0 if esp else SNAP, "", ""),
        NONE,
        (RETURN, 0, "", ""),
    ]
    return _assembled(lines)


def _ends(source: Address, destination: Address, name: str) -> list[Line]:
    """Go to `matches` for packets from one address to another."""
    start = 12 if source.version == IP4 else 8
    ends = source.packed + destination.packed
    lines: list[Line] = []
    for place in range(0, len(ends), 4):
        lines.append((LOAD_WORD, start + place, "", ""))
        last = place + 4 == len(ends)
        word = int.from_bytes(ends[place : place + 4])
        lines.append((EQUAL, word, "matches" if last else "", f"not {name}"))
    return [*lines, f"not {name}"]


def _inside_4() -> list[Line]:
    return [
        (LOAD_BYTE, 9, "", ""),
        (EQUAL, ESP, ESP_, ""),
        (EQUAL, UDP, "", REST),
        (LOAD_HALF, 6, "", ""),
        (ANY_BIT, 0x1FFF, REST, ""),
        (HEADER_TO_X, 0, "", ""),
        *_in_udp(LOAD_HALF_X, LOAD_WORD_X, 0),
    ]


def _inside_6() -> list[Line]:
    return [
        (LOAD_BYTE, 6, "", ""),
        (EQUAL, ESP, ESP_, ""),
        (EQUAL, UDP, "", REST),
        *_in_udp(LOAD_HALF, LOAD_WORD, 40),
    ]


def _in_udp(half: int, word: int, at: int) -> list[Line]:
    """ESP in UDP does not begin with four zero bytes (RFC 3948, section 2.2)."""
    return [
        (half, at, "", ""),
        (EQUAL, NATT, "", REST),
        (half, at + 2, "", ""),
        (EQUAL, NATT, "", REST),
        (word, at + 8, "", ""),
        (EQUAL, 0, REST, ESP_),
    ]


def _assembled(lines: Sequence[Line]) -> bytes:
    places: dict[str, int] = {}
    code: list[tuple[int, int, str, str]] = []
    for line in lines:
        if isinstance(line, str):
            places[line] = len(code)
        else:
            code.append(line)
    return b"".join(
        struct.pack(
            "HBBI",
            kind,
            places[true] - number - 1 if true else 0,
            places[false] - number - 1 if false else 0,
            operand,
        )
        for number, (kind, operand, true, false) in enumerate(code)
    )


# --- the capture ------------------------------------------------------------------------------


class Capture:
    """Counts what travels between two addresses, from its beginning or its last `take` on."""

    def __init__(self, own: Address, peer: Address) -> None:
        """Begin.

        Raises:
            KernelError: not root, or the kernel refuses the sockets.
        """
        self._own = own.packed
        self._sockets: list[socket.socket] = []
        self._clear()
        try:
            for esp in (True, False):
                self._sockets.append(_opened(program(own, peer, esp=esp)))
        except OSError as error:
            self.close()
            raise refused(
                "cannot capture packets", error, "run as root; the kernel needs CONFIG_PACKET"
            ) from error

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _e: BaseException | None, _t: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        """End it."""
        for one in self._sockets:
            one.close()

    def watched(self, add: Callable[[int, Callable[[], None]], object]) -> None:
        """Have an event loop read whenever there is something.

        Args:
            add: `loop.add_reader`.
        """
        for one in self._sockets:
            add(one.fileno(), lambda one=one: self._read(one))  # type: ignore[misc]

    @property
    def descriptors(self) -> tuple[int, ...]:
        """Those of the sockets."""
        return tuple(one.fileno() for one in self._sockets)

    def take(self) -> Window:
        """What was seen since the beginning, or since the last time."""
        for one in self._sockets:
            self._read(one, most=1 << 16)
        statistics = self._sockets[1].getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)
        lost = struct.unpack("II", statistics)[1]
        seen, protocols, links = self._seen, self._protocols, self._links
        self._clear()
        return Window(
            esp_out=seen[Kind.ESP, True],
            esp_in=seen[Kind.ESP, False],
            ike_out=seen[Kind.IKE, True],
            ike_in=seen[Kind.IKE, False],
            clear_out=seen[Kind.CLEAR, True],
            clear_in=seen[Kind.CLEAR, False],
            closed=seen[Kind.CLOSED, False],
            protocols=tuple(protocols),
            links=tuple(links),
            lost=lost,
        )

    def _clear(self) -> None:
        self._seen: Counter[tuple[Kind, bool]] = Counter()
        self._protocols: dict[str, None] = {}
        self._links: dict[str, None] = {}

    def _read(self, one: socket.socket, most: int = 256) -> None:
        # A link that goes away is an error that is told once.
        with contextlib.suppress(OSError):
            for _ in range(most):
                packet, (link, _, how, *_) = one.recvfrom(SNAP)
                if how != OTHER_HOST:
                    self._count(packet, link)

    def _count(self, packet: bytes, link: str) -> None:
        kind, protocol = kind_of(packet)
        at = 12 if len(self._own) == IP4 else 8
        self._seen[kind, packet[at : at + len(self._own)] == self._own] += 1
        if kind is Kind.CLEAR:
            self._protocols[protocol] = None
        elif kind is Kind.ESP:
            self._links[link] = None


def _opened(code: bytes) -> socket.socket:
    opened = socket.socket(socket.AF_PACKET, socket.SOCK_DGRAM, socket.htons(ETH_P_ALL))
    try:
        held = ctypes.create_string_buffer(code)
        opened.setsockopt(
            socket.SOL_SOCKET,
            SO_ATTACH_FILTER,
            struct.pack("HP", len(code) // 8, ctypes.addressof(held)),
        )
        opened.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, ROOM)
        opened.setblocking(False)
        _drain(opened)
    except OSError:
        opened.close()
        raise
    return opened


def _drain(opened: socket.socket) -> None:
    """Throw away what came before the filter was there."""
    with contextlib.suppress(BlockingIOError, InterruptedError):
        for _ in range(1 << 16):
            opened.recv(1)
    opened.getsockopt(SOL_PACKET, PACKET_STATISTICS, 8)


def decrypts_early(modules: Path = Path("/proc/modules")) -> bool:
    """Whether a module is loaded with which ESP that arrives may be decrypted before a capture."""
    try:
        listed = modules.read_text()
    except OSError:
        return False
    return any(line.startswith(("esp4_offload ", "esp6_offload ")) for line in listed.splitlines())
