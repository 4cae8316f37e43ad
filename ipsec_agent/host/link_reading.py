"""Reads the links of this VM and of its containers, and of these only what may have changed."""

import threading
import time
from collections.abc import Container, Iterable
from socket import socket

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.inside import may_be_own_way, switched_ends
from ipsec_agent.core.observed import Link, Namespace
from ipsec_agent.host.link_events import News
from ipsec_agent.host.link_records import (
    namespace_names,
    read_links,
    read_numbers,
    read_own_number,
)
from ipsec_agent.host.netlink_errors import translated
from ipsec_agent.host.rtnetlink import open_rtnetlink

ALL_ANEW = 60.0
"""Seconds after which every namespace is read again, although no event tells of it."""


class Seen(Struct, frozen=True):
    """What was read; see NetworkFacts for `number`."""

    links: tuple[Link, ...]
    namespaces: tuple[Namespace, ...]
    number: int | None


class LinkReading:
    """What was read of other namespaces, and which of it events have made doubtful."""

    def __init__(self) -> None:
        self._kept: dict[int, Namespace] = {}
        self._doubtful: set[int] = set()
        self._all_doubtful = True
        self._hears_all = False
        self._whole = 0.0
        self._own: int | None = None
        # One reading at a time; news may come meanwhile, and count for the next one.
        self._reading = threading.Lock()

    def told(self, news: News, *, hears_all: bool) -> None:
        """Hear of changes.

        Args:
            hears_all: changes in other namespaces are told; where not, nothing of them is kept.
        """
        self._hears_all = hears_all
        self._doubtful |= news.namespaces
        self._all_doubtful |= news.everywhere

    def deaf(self) -> None:
        """Nobody hears of changes any more."""
        self._hears_all = False

    def read(self) -> Seen:
        """Ask the kernel. It blocks.

        Raises:
            KernelError: refused or too late.
        """
        with self._reading, translated("reading the links"), open_rtnetlink() as channel:
            links = read_links(channel)
            numbers = {link.namespace for link in links if link.namespace is not None}
            numbers |= read_numbers(channel)
            kept = self._undoubted()
            read = [
                kept.get(each) or _namespace(channel, each)
                for each in sorted(numbers - {self._own})
            ]
            # The kernel counts this one, too, once a link in another that it told of refers to it.
            self._own = read_own_number(channel)
            found = {one.number: one for one in read if one and one.number != self._own}
            switched = {end.namespace for end in switched_ends(links)}
            self._kept = _named(channel, found, self._own, switched)
        return Seen(links, tuple(self._kept.values()), self._own)

    def _undoubted(self) -> dict[int, Namespace]:
        """What need not be read again; from here on news are for the next reading."""
        now = time.monotonic()
        doubtful, self._doubtful = self._doubtful, set()
        everything, self._all_doubtful = self._all_doubtful, False
        if everything or not self._hears_all or now - self._whole > ALL_ANEW:
            self._whole = now
            return {}
        return {each: one for each, one in self._kept.items() if each not in doubtful}


def _namespace(channel: socket, number: int) -> Namespace | None:
    """A namespace; None where it may not be read, or has just gone."""
    try:
        return Namespace(number, read_links(channel, number))
    except OSError:
        return None


def _named(
    channel: socket, found: dict[int, Namespace], own: int | None, switched: Container[int | None]
) -> dict[int, Namespace]:
    """The same, with names for those that an operator may have to be told of.

    Args:
        switched: those with a link in a bridge that may lead out.
    """
    nameless = {
        each
        for each, namespace in found.items()
        if not namespace.name and (each in switched or _to_tell(namespace.links, own))
    }
    names = namespace_names(channel, nameless)
    return found | {each: replace(found[each], name=name) for each, name in names.items()}


def _to_tell(links: Iterable[Link], own: int | None) -> bool:
    return any(may_be_own_way(link, own) for link in links)
