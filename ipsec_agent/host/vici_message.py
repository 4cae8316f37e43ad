"""What a VICI message says: sections, lists and values (README.md of strongSwan's plugin vici).

Half of a pass's time with 1,000 peers was spent in the decoder of the package `vici`, which reads
byte by byte from a stream; this one slices, and takes a fifth of it (`scripts/bench vici`).
"""

from typing import Any

from vici.protocol import Message


def decoded(message: bytes, at: int = 0) -> dict[str, Any]:
    """A message as nested dictionaries: names are text, values are bytes, lists have bytes.

    Args:
        at: where it begins; what is before is not its.

    Raises:
        ValueError: it is no VICI message; LookupError likewise.
    """
    outer: list[dict[str, Any]] = []
    section: dict[str, Any] = {}
    # Where a length points beyond the end nothing is there to be read, and `at` tells of it.
    while at < len(message):
        kind = message[at]
        if kind == Message.SECTION_END:
            section = outer.pop()
            at += 1
            continue
        start, at = at + 2, at + 2 + message[at + 1]
        name = message[start:at].decode()
        if kind == Message.KEY_VALUE:
            start, at = at + 2, at + 2 + message[at] * 256 + message[at + 1]
            section[name] = message[start:at]
        elif kind == Message.LIST_START:
            section[name], at = _items(message, at)
        elif kind == Message.SECTION_START:
            inner: dict[str, Any] = {}
            section[name] = inner
            outer.append(section)
            section = inner
        else:
            raise ValueError(f"{kind} is not a VICI element")
    if at > len(message) or outer:
        raise ValueError("a VICI message ends too early")
    return section


def _items(message: bytes, at: int) -> tuple[list[bytes], int]:
    """The items of a list, and where what follows it begins."""
    found = []
    while message[at] == Message.LIST_ITEM:
        start, at = at + 3, at + 3 + message[at + 1] * 256 + message[at + 2]
        found.append(message[start:at])
    if message[at] != Message.LIST_END:
        raise ValueError(f"{message[at]} is not an element of a VICI list")
    return found, at + 1
