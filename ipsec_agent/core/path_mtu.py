"""The largest packet that comes through between two VMs: which size to try next, and what it tells.

Packets have "don't fragment" set. This VM refuses to send what does not fit into its own link, or
into what the network has told of the path. What is sent and not answered was lost without a word,
which is a black hole: TCP fills packets up to that size, and hangs.
"""

from msgspec import Struct
from msgspec.structs import replace

SMALLEST = 84
"""Bytes of an usual echo, IP header included; one that was answered."""


class Search(Struct, frozen=True):
    """How far the search has come. All sizes are of whole IP packets before ESP, in bytes.

    Attributes:
        passes: the largest that was answered.
        fails: the smallest that was refused or lost.
        refused: the smallest that this VM refused to send.
    """

    passes: int
    fails: int
    refused: int

    @property
    def size(self) -> int | None:
        """The size to try next, None once nothing is left to be tried."""
        if self.fails - self.passes <= 1:
            return None
        if self.refused == self.fails:
            # As most paths take what the link takes, the largest first.
            return self.fails - 1
        return (self.passes + self.fails) // 2

    def answered(self, size: int) -> "Search":
        """After an answer."""
        return replace(self, passes=max(self.passes, size))

    def lost(self, size: int) -> "Search":
        """After no answer came."""
        return replace(self, fails=min(self.fails, size))

    def too_large(self, size: int) -> "Search":
        """After this VM has refused to send it."""
        return replace(self, fails=min(self.fails, size), refused=min(self.refused, size))


class PathMtu(Struct, frozen=True):
    """The largest IP packet before ESP that comes through, in bytes.

    Attributes:
        link: the largest that this VM sends, by its link and by what the network has told.
    """

    passes: int
    link: int

    @property
    def black_hole(self) -> bool:
        """Larger packets are sent, and lost without a word."""
        return self.passes < self.link


def begun(refused: int) -> Search:
    """The beginning of a search, where the smallest packet was answered.

    Args:
        refused: the smallest size that this VM refuses to send.
    """
    return Search(min(SMALLEST, refused - 1), refused, refused)


def found(search: Search) -> PathMtu:
    """What a search has found."""
    return PathMtu(search.passes, search.refused - 1)
