"""What a file of `status --json` says of a VM, as records. Nothing of it is taken for true.

Types and ranges are checked here. Keys that are not known are passed over, and those that an older
agent does not have are empty.
"""

from datetime import datetime
from functools import lru_cache
from ipaddress import ip_address
from typing import Annotated

from msgspec import Meta, Struct, field

LATEST = 1 << 37
"""Seconds since the epoch that no honest clock has (the year 6325)."""

Count = Annotated[int, Meta(ge=0, le=2**63 - 1)]
Seconds = Annotated[float, Meta(ge=0, le=LATEST)]
"""A length of time, or a time since the epoch; 0 where it is not known."""


MOST_LETTERS = 1 << 16
"""Characters of a text."""

Text = Annotated[str, Meta(max_length=MOST_LETTERS)]

MOST_PEERS, MOST_PROBLEMS, MOST_FEW = 8192, 1024, 512
"""Peers and all that there is of each, problems, and what an honest VM has a handful of. The guard
counts 4,096 addresses each way."""

MOST = {
    ("peers",): MOST_PEERS,
    ("certificates",): MOST_PEERS,
    ("problems",): MOST_PROBLEMS,
    ("addresses",): MOST_FEW,
    ("optional", "would_cut_off"): MOST_PEERS,
    ("optional", "never_heard"): MOST_PEERS,
    ("optional", "unseen"): MOST_PEERS,
    ("guard", "clear_in"): MOST_PEERS,
    ("guard", "clear_out"): MOST_PEERS,
    ("fingerprint", "authorities"): MOST_FEW,
}
"""Entries of each list that is read, by the keys that lead to it."""


class Spelled(str):
    """An address in the one way in which ipaddress spells it."""

    __slots__ = ()


def hook(kind: type, found: object) -> object:
    """What msgspec does not read by itself.

    Raises:
        ValueError: it is no address.
    """
    if kind is not Spelled or not isinstance(found, str):
        raise ValueError("Expected an address")
    return spelled(found)


@lru_cache(maxsize=1 << 16)
def spelled(text: str) -> Spelled:
    """An address from its text.

    Raises:
        ValueError: it is no address, or one that counts on a link only.
    """
    # A zone may be any text.
    if "%" in text:
        raise ValueError("Expected an address without a zone")
    try:
        return Spelled(ip_address(text))
    except ValueError:
        raise ValueError("Expected an address") from None


class Problem(Struct, frozen=True):
    """One of `problems`."""

    code: Text
    severity: Text = ""
    message: Text = ""


class Peer(Struct, frozen=True):
    """One of `peers`."""

    address: Spelled
    state: Text = ""
    problem: Text = ""
    age: Count = 0
    packets_in: Count = 0
    packets_out: Count = 0
    idle_in: Count | None = None
    idle_out: Count | None = None

    @property
    def up(self) -> bool:
        """Whether there are SAs that carry packets."""
        return self.state in {"installed", "orphan", "unknown"}


class Talk(Struct, frozen=True):
    """A peer that enforcing would cut off, or that was never heard from."""

    address: Spelled
    last: Seconds = 0
    way: Text = ""
    packets: Count = 0


class Optional(Struct, frozen=True):
    """The part `optional`: there while IPsec is not enforced."""

    counted: bool = False
    would_cut_off: tuple[Talk, ...] = ()
    never_heard: tuple[Talk, ...] = ()
    unseen: tuple[Spelled, ...] = ()


class Counted(Struct, frozen=True):
    """An address of which the guard has counted clear packets."""

    address: Spelled
    packets: Count = 0
    idle: Count = 0


class Guard(Struct, frozen=True):
    """The part `guard`."""

    mode: Text = ""
    state: Text = ""
    drops: bool | None = None
    clear_in: tuple[Counted, ...] = ()
    clear_out: tuple[Counted, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether it lets pass what it counts; agents of before 0.2 do not say so."""
        return self.state != "up" if self.drops is None else not self.drops


class Certificate(Struct, frozen=True):
    """One of `certificates`."""

    subject: Text
    not_after: Annotated[datetime, Meta(tz=True)]
    role: Text = ""


class Rotation(Struct, frozen=True):
    """The part `rotation`."""

    peers: Count = 0
    behind: Count = 0


class Charon(Struct, frozen=True):
    """The part `charon`."""

    version: Text = ""


class Fingerprint(Struct, frozen=True):
    """The part `fingerprint` (core/fingerprint.py)."""

    config: Text
    lists: Text
    proposals: Text
    optional: bool
    outside: Text
    force_udp_encapsulation: bool
    certificate: Text
    authorities: tuple[Text, ...]


class Said(Struct, frozen=True):
    """A document of `status --json`. Only `schema` and `state` are in each."""

    schema: Annotated[int, Meta(ge=1)]
    state: Text
    healthy: bool = False
    version: Text = ""
    time: Seconds = 0
    address: Spelled | None = None
    addresses: tuple[Spelled, ...] = ()
    role: Text = ""
    problems: tuple[Problem, ...] = ()
    charon: Charon | None = None
    peers: tuple[Peer, ...] = ()
    rotation: Rotation = field(default_factory=Rotation)
    optional: Optional | None = None
    guard: Guard = field(default_factory=Guard)
    certificates: tuple[Certificate, ...] = ()
    fingerprint: Fingerprint | None = None

    @property
    def entries(self) -> int:
        """How much there is of what there may be much of."""
        loose = self.optional
        return (
            sum(map(len, (self.peers, self.problems, self.certificates)))
            + sum(map(len, (self.guard.clear_in, self.guard.clear_out)))
            + (
                sum(map(len, (loose.would_cut_off, loose.never_heard, loose.unseen)))
                if loose
                else 0
            )
        )
