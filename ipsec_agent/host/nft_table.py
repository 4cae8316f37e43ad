"""What the kernel's bytes say of the guard: its counters, exempt links, and anybody's flowtables.

No socket. Formats: linux/netfilter/nf_tables.h; numbers in attributes are big-endian, but an
interface's index is this machine's.
"""

import sys
from collections.abc import Iterator, Mapping
from ipaddress import ip_address

from ipsec_agent.core.model import LinkId, address_order
from ipsec_agent.core.observed_guard import ClearLink, ClearPeer, GuardTable
from ipsec_agent.host.nft_image import (
    EXPRESSION_DATA,
    FIXED,
    RULE_EXPRESSIONS,
    Image,
    chain_of,
    counters,
    name_of,
)
from ipsec_agent.host.nft_wire import attributes

LINKS, PORTS = "exempt", "overlay_ports"

_PEERS = ("clear_in", "clear_out", "misplaced", "untranslated", "tunnel")
_UNGUARDED = ("unguarded_in", "unguarded_out")

SETS = frozenset(
    {*FIXED, LINKS, PORTS, *_UNGUARDED, *(name + version for name in _PEERS for version in "46")}
)
"""The sets whose elements are read."""

_DROPS_IN = (
    "clear_in4", "clear_in6", "tunnel_in4", "tunnel_in6", "disguised_in", "closed_in",
    "overlay_in4", "overlay_in6",
)  # fmt: skip
_DROPS_OUT = (
    "clear_out4", "clear_out6", "tunnel_out4", "tunnel_out6", "misplaced4", "misplaced6",
    "disguised_out", "overlay_out4", "overlay_out6", "closed_out",
    "closed_forward",
)  # fmt: skip
"""The chains that drop, with a counter."""

_FAMILIES = {1: "inet", 2: "ip", 3: "arp", 5: "netdev", 7: "bridge", 10: "ip6"}
"""linux/netfilter.h, as nft names them."""

_CHAIN_NAME, _SET_TIMEOUT = 3, 11
_KEY, _TIMEOUT, _EXPIRATION, _EXPRESSION, _EXPRESSIONS = 1, 4, 5, 7, 11
_VALUE, _BYTES, _PACKETS = 1, 1, 2
_FLOWTABLE_TABLE, _FLOWTABLE_NAME, _FLOWTABLE_HOOK, _HOOK_DEVICES = 1, 2, 3, 3
_INDEX = 4


def guard_table(image: Image, links: Mapping[int, str]) -> GuardTable:
    """The record of what was read.

    Args:
        links: name by index.

    Raises:
        ValueError: it is not understood; LookupError likewise.
    """
    drops = _drops(image)
    return GuardTable(
        form=image.form,
        exempt=tuple(sorted(map(_link, _keys(image, LINKS)))),
        overlay_ports=tuple(sorted(int.from_bytes(key) for key in _keys(image, PORTS))),
        dropped_in=_sum(drops, *_DROPS_IN),
        dropped_out=_sum(drops, *_DROPS_OUT),
        tunnelled_in=_sum(drops, "tunnel_in4", "tunnel_in6"),
        tunnelled_out=_sum(drops, "tunnel_out4", "tunnel_out6"),
        disguised_in=_sum(drops, "disguised_in"),
        disguised_out=_sum(drops, "disguised_out"),
        clear_in=_peers(image, "clear_in"),
        clear_out=_peers(image, "clear_out"),
        misplaced=_peers(image, "misplaced"),
        untranslated=_peers(image, "untranslated"),
        tunnelled=_peers(image, "tunnel"),
        unguarded=_links(image, links),
        closed=any(one[_CHAIN_NAME] == b"closed_out\0" for one in image.chains),
    )


def dropped(image: Image) -> int:
    """Packets that all rules with a counter have counted."""
    return sum(_drops(image).values())


def flowtable(family: int, payload: bytes) -> str | None:
    """A flowtable as "FAMILY TABLE NAME", None of one without links: it carries nothing.

    Args:
        payload: the attributes that the kernel tells of it.
    """
    found = dict(attributes(payload))
    hook = dict(attributes(found.get(_FLOWTABLE_HOOK, b"")))
    if not hook.get(_HOOK_DEVICES):
        return None
    names = (
        found[it].rstrip(b"\0").decode(errors="replace")
        for it in (_FLOWTABLE_TABLE, _FLOWTABLE_NAME)
    )
    return " ".join((_FAMILIES.get(family, str(family)), *names))


def _drops(image: Image) -> dict[str, int]:
    """Packets that the counters of each chain's rules have counted."""
    found: dict[str, int] = {}
    for rule in image.rules:
        for data in counters(rule.get(RULE_EXPRESSIONS, b"")):
            chain = chain_of(rule)
            found[chain] = found.get(chain, 0) + _counts(data)[0]
    return found


def _sum(drops: dict[str, int], *chains: str) -> int:
    return sum(drops.get(chain, 0) for chain in chains)


def _counts(data: bytes) -> tuple[int, int]:
    """A counter's packets and bytes."""
    found = dict(attributes(data))
    return int.from_bytes(found[_PACKETS]), int.from_bytes(found[_BYTES])


def _key(element: dict[int, bytes]) -> bytes:
    return dict(attributes(element[_KEY]))[_VALUE]


def _keys(image: Image, name: str) -> Iterator[bytes]:
    return (_key(dict(attributes(one))) for one in image.elements.get(name, ()))


def _link(key: bytes) -> LinkId:
    """An exempt link; of a table of another version, which had indexes only, without a name."""
    return LinkId(_index(key), key[_INDEX:].rstrip(b"\0").decode(errors="replace"))


def _index(key: bytes) -> int:
    return int.from_bytes(key[:_INDEX], sys.byteorder)


def _counted(image: Image, name: str) -> Iterator[tuple[bytes, int, int, int]]:
    """Key, packets, bytes and seconds of silence of each element."""
    lifetime = next((_time(one, _SET_TIMEOUT) for one in image.sets if name_of(one) == name), 0)
    for one in image.elements.get(name, ()):
        element = dict(attributes(one))
        lasts = _time(element, _TIMEOUT) or lifetime
        idle = lasts - _time(element, _EXPIRATION) if _EXPIRATION in element else 0
        packets, size = next(_element_counts(element))
        yield _key(element), packets, size, max(0, idle // 1000)


def _element_counts(element: dict[int, bytes]) -> Iterator[tuple[int, int]]:
    if _EXPRESSION in element:
        yield _counts(dict(attributes(element[_EXPRESSION]))[EXPRESSION_DATA])
    yield from map(_counts, counters(element.get(_EXPRESSIONS, b"")))
    yield 0, 0


def _time(found: Mapping[int, bytes], number: int) -> int:
    """Milliseconds, 0 where nothing is said."""
    return int.from_bytes(found.get(number, b""))


def _peers(image: Image, name: str) -> tuple[ClearPeer, ...]:
    return tuple(
        sorted(
            (
                ClearPeer(ip_address(key), packets, size, idle)
                for version in "46"
                for key, packets, size, idle in _counted(image, name + version)
            ),
            key=lambda peer: address_order(peer.address),
        )
    )


def _links(image: Image, names: Mapping[int, str]) -> tuple[ClearLink, ...]:
    found: dict[str, ClearLink] = {}
    for direction in _UNGUARDED:
        for key, packets, size, idle in _counted(image, direction):
            name = names.get(_index(key), str(_index(key)))
            old = found.get(name, ClearLink(name, 0, 0, idle))
            found[name] = ClearLink(
                name, old.packets + packets, old.bytes + size, min(old.idle, idle)
            )
    return tuple(found[name] for name in sorted(found))
