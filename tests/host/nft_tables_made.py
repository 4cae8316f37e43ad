"""A kernel that tells of nftables, and tables as it tells them."""

import struct
from collections.abc import Iterable, Iterator, Mapping
from typing import Self

from ipsec_agent.host.nft_image import (
    GET_CHAIN,
    GET_ELEMENTS,
    GET_GENERATION,
    GET_RULE,
    GET_SET,
    GET_TABLE,
)
from ipsec_agent.host.nft_tables import GET_FLOWTABLES
from ipsec_agent.host.nft_wire import NFPROTO_INET, attribute, attributes

NAME = b"ipsec_agent\0"
SET_NAME, SET_TIMEOUT = 2, 11


def big(value: int, size: int = 4) -> bytes:
    """A number."""
    return value.to_bytes(size)


def packed(found: Mapping[int, bytes]) -> bytes:
    """Attributes."""
    return b"".join(attribute(kind, value) for kind, value in found.items())


def counter(packets: int) -> bytes:
    """An expression that counts: each packet has 100 bytes."""
    counts = packed({1: big(packets * 100, 8), 2: big(packets, 8)})
    return packed({1: b"counter\0", 2: counts})


def verdict(code: int) -> bytes:
    """An expression that decides."""
    return packed(
        {1: b"immediate\0", 2: packed({1: big(0), 2: packed({2: packed({1: big(code)})})})}
    )


def rule(
    chain: str, *expressions: bytes, handle: int = 9, comment: bytes = b""
) -> dict[int, bytes]:
    """A rule."""
    listed = b"".join(attribute(1, one) for one in expressions)
    found = {1: NAME, 2: chain.encode() + b"\0", 3: big(handle, 8), 4: listed, 6: big(handle, 8)}
    return {**found, 7: comment} if comment else found


def drop(chain: str, packets: int, handle: int = 9) -> dict[int, bytes]:
    """The rule that counts and drops."""
    return rule(chain, counter(packets), verdict(0), handle=handle)


def chain(name: str, **more: bytes) -> dict[int, bytes]:
    """A chain; further attributes are named like a5."""
    found = {1: NAME, 2: big(4, 8), 3: name.encode() + b"\0", 6: big(1)}
    return found | {int(key[1:]): value for key, value in more.items()}


def a_set(name: str, flags: int = 0, timeout: int = 0, **more: bytes) -> dict[int, bytes]:
    """A set."""
    found = {1: NAME, 2: name.encode() + b"\0", 3: big(flags), 4: big(7), 5: big(4), 16: big(8, 8)}
    found |= {SET_TIMEOUT: big(timeout, 8)} if timeout else {}
    return found | {int(key[1:]): value for key, value in more.items()}


def element(key: bytes, **more: bytes) -> bytes:
    """An element; further attributes are named like a3."""
    return packed({1: attribute(1, key), **{int(it[1:]): value for it, value in more.items()}})


def counted(key: bytes, packets: int, left: int) -> bytes:
    """An element that counts, and is forgotten after some seconds."""
    return element(key, a5=big(left * 1000, 8), a7=counter(packets))


def index(number: int, name: str = "") -> bytes:
    """A link, as a set's key has it."""
    return struct.pack("=I", number) + (name.encode().ljust(16, b"\0") if name else b"")


class Kernel:
    """What the kernel answers.

    Attributes:
        asked: the set whose elements were asked for, one after the other.
        generations: what it says of the generation, one after the other; the last for ever.
    """

    def __init__(
        self,
        *,
        table: Mapping[int, bytes] | None = None,
        sets: Iterable[Mapping[int, bytes]] = (),
        chains: Iterable[Mapping[int, bytes]] = (),
        rules: Iterable[Mapping[int, bytes]] = (),
        elements: Mapping[str, tuple[bytes, ...]] | None = None,
        flowtables: Iterable[tuple[int, bytes]] = (),
    ) -> None:
        self.table, self.elements = table, elements or {}
        self.dumps = {
            GET_SET: [(NFPROTO_INET, packed(one)) for one in sets],
            GET_CHAIN: [(NFPROTO_INET, packed(one)) for one in chains],
            GET_RULE: [(NFPROTO_INET, packed(one)) for one in rules],
            GET_FLOWTABLES: list(flowtables),
        }
        self.asked: list[str] = []
        self.generations = [7]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def ask(
        self, kind: int, body: bytes, family: int, *, dump: bool = False
    ) -> Iterator[tuple[int, bytes]]:
        """As the kernel answers.

        Raises:
            FileNotFoundError: no such table.
        """
        if kind == GET_GENERATION:
            now = self.generations.pop(0) if len(self.generations) > 1 else self.generations[0]
            yield 0, packed({1: big(now)})
        elif kind == GET_TABLE:
            if self.table is None or family != NFPROTO_INET:
                raise FileNotFoundError
            yield family, packed(self.table)
        elif kind == GET_ELEMENTS:
            name = dict(attributes(body))[2].rstrip(b"\0").decode()
            self.asked.append(name)
            # In two messages, as of a large set.
            for part in (self.elements.get(name, ())[:1], self.elements.get(name, ())[1:]):
                yield family, packed({3: b"".join(attribute(1, one) for one in part)})
        else:
            assert dump
            yield from self.dumps[kind]


TABLE = {1: NAME, 2: big(0), 3: big(30), 4: big(3, 8)}
OUTSIDE = (
    element(b"\x0a\0\0\2"),
    element(b"\x0a\0\0\2", a3=big(1)),
    element(b"\x0a\0\0\1"),
    element(bytes(4), a3=big(1)),
)
"""Two ranges that touch; an end is told from a start by its flag."""

HOUR = 3_600_000


def guard(**other: object) -> Kernel:
    """A small guard; parts of it may be others."""
    parts: dict[str, object] = {
        "table": TABLE,
        "sets": (
            a_set("outside4", 4),
            a_set("exempt"),
            a_set("overlay_ports"),
            *(
                a_set(name, 0x30, HOUR, a17=counter(0))
                for name in (
                    "clear_in4",
                    "clear_in6",
                    "misplaced4",
                    "unguarded_in",
                    "unguarded_out",
                )
            ),
            a_set("tunnel4", 0x30, HOUR, a17=counter(0)),
            a_set("__set0", 3),
        ),
        "chains": (chain("in", a4=b"hook", a5=big(1), a7=b"filter\0"), chain("clear_in4")),
        "rules": (
            rule("in", verdict(1), comment=b"\0\2a\0"),
            drop("clear_in4", 6),
            drop("clear_in6", 2),
            drop("misplaced4", 4),
            drop("disguised_in", 1),
            drop("disguised_out", 2),
            drop("tunnel_in4", 3),
            drop("clear_out4", 7),
        ),
        "elements": {
            "outside4": OUTSIDE,
            "exempt": (element(index(17, "gone")), element(index(3, "veth1"))),
            "overlay_ports": (element(b"\x12\xb5"),),
            "clear_in4": (
                counted(bytes((10, 0, 1, 7)), 5, 3595),
                counted(bytes((10, 0, 1, 6)), 1, 3600),
            ),
            "clear_in6": (counted(b"\xfd" + bytes(14) + b"\7", 2, 0),),
            "misplaced4": (counted(bytes((192, 168, 77, 1)), 4, 3600),),
            "unguarded_in": (counted(index(3), 3, 3590),),
            "unguarded_out": (counted(index(3), 4, 3599), counted(index(99), 1, 3600)),
            "tunnel4": (counted(bytes((10, 0, 1, 9)), 3, 3600),),
            "__set0": (element(b"\1\xf4"),),
        },
    }
    return Kernel(**(parts | other))  # type: ignore[arg-type]
