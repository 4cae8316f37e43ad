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

    code: str
    severity: str = ""
    message: str = ""


class Peer(Struct, frozen=True):
    """One of `peers`."""

    address: Spelled
    state: str = ""
    problem: str = ""
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
    way: str = ""
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

    mode: str = ""
    state: str = ""
    drops: bool | None = None
    clear_in: tuple[Counted, ...] = ()
    clear_out: tuple[Counted, ...] = ()

    @property
    def passes(self) -> bool:
        """Whether it lets pass what it counts; agents of before 0.2 do not say so."""
        return self.state != "up" if self.drops is None else not self.drops


class Certificate(Struct, frozen=True):
    """One of `certificates`."""

    subject: str
    not_after: Annotated[datetime, Meta(tz=True)]
    role: str = ""


class Rotation(Struct, frozen=True):
    """The part `rotation`."""

    peers: Count = 0
    behind: Count = 0


class Charon(Struct, frozen=True):
    """The part `charon`."""

    version: str = ""


class Fingerprint(Struct, frozen=True):
    """The part `fingerprint` (core/fingerprint.py)."""

    config: str
    lists: str
    proposals: str
    optional: bool
    outside: str
    force_udp_encapsulation: bool
    certificate: str
    authorities: tuple[str, ...]


class Said(Struct, frozen=True):
    """A document of `status --json`. Only `schema` and `state` are in each."""

    schema: Annotated[int, Meta(ge=1)]
    state: str
    healthy: bool = False
    version: str = ""
    time: Seconds = 0
    address: Spelled | None = None
    addresses: tuple[Spelled, ...] = ()
    role: str = ""
    problems: tuple[Problem, ...] = ()
    charon: Charon | None = None
    peers: tuple[Peer, ...] = ()
    rotation: Rotation = field(default_factory=Rotation)
    optional: Optional | None = None
    guard: Guard = field(default_factory=Guard)
    certificates: tuple[Certificate, ...] = ()
    fingerprint: Fingerprint | None = None
