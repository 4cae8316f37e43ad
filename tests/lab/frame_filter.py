"""Filters that the kernel runs on frames: classic BPF (linux/filter.h), put together by hand."""

import ctypes
import socket
import struct
from collections.abc import Iterable, Sequence
from ipaddress import ip_address

from tests.lab.frames import ESP, IPV4, IPV6

Program = Sequence[tuple[int, int, int, int]]
"""Instructions: code, jump if true, jump if false, operand."""

LOAD_WORD, LOAD_HALF, LOAD_BYTE, EQUAL, RETURN = 0x20, 0x28, 0x30, 0x15, 0x06
IFINDEX = 0x1_0000_0000 - 0x1000 + 8
"""Where a filter reads the index of the link (SKF_AD_OFF + SKF_AD_IFINDEX)."""

SO_ATTACH_FILTER = 26
NOTHING: Program = ((RETURN, 0, 0, 0),)

Condition = tuple[int, int, int]
"""How to load, where from, and what must be there."""


def leaving_out(directions: Iterable[tuple[str, str]], size: int) -> Program:
    """All frames, `size` bytes of each, but the ESP from one address to another."""
    program: list[tuple[int, int, int, int]] = []
    for one, other in directions:
        program += _when(_esp(one, other), 0)
    return (*program, (RETURN, 0, 0, size))


def counting(one: str, other: str, links: Iterable[int]) -> Program:
    """Only the ESP from one address to another, except as these links show it."""
    program: list[tuple[int, int, int, int]] = []
    for index in links:
        program += _when([(LOAD_WORD, IFINDEX, index)], 0)
    return (*program, *_when(_esp(one, other), 1), (RETURN, 0, 0, 0))


def attach(opened: socket.socket, program: Program) -> None:
    """Have the kernel run a filter on what a socket gets."""
    code = b"".join(struct.pack("HBBI", *instruction) for instruction in program)
    held = ctypes.create_string_buffer(code)
    opened.setsockopt(
        socket.SOL_SOCKET,
        SO_ATTACH_FILTER,
        struct.pack("HP", len(program), ctypes.addressof(held)),
    )


def _when(conditions: Sequence[Condition], verdict: int) -> Program:
    """Return the verdict where all conditions hold, else go on behind this."""
    program: list[tuple[int, int, int, int]] = []
    for number, (load, place, value) in enumerate(conditions):
        rest = 2 * (len(conditions) - number - 1) + 1
        program += [(load, 0, 0, place), (EQUAL, 0, rest, value)]
    return [*program, (RETURN, 0, 0, verdict)]


def _esp(one: str, other: str) -> list[Condition]:
    source, destination = ip_address(one), ip_address(other)
    if source.version == 4:
        kind, protocol, start = IPV4, 23, 26
    else:
        kind, protocol, start = IPV6, 20, 22
    ends = source.packed + destination.packed
    return [
        (LOAD_HALF, 12, int.from_bytes(kind)),
        (LOAD_BYTE, protocol, ESP),
        *(
            (LOAD_WORD, start + place, int.from_bytes(ends[place : place + 4]))
            for place in range(0, len(ends), 4)
        ),
    ]
