"""Would the peers accept another certificate? Some of them are asked before it is in force.

Each gets an IKE_SA without a CHILD_SA, by a connection of its own, with what is to come; it ends at
once, and what carries the traffic is not touched. A peer that refuses notes that as a fault of this
VM's, which only a newer IKE_SA ends: so it gets one with what is in force afterwards.
"""

import enum
from collections.abc import Iterable
from datetime import datetime

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.model import Address, Connection, Desired, Pair
from ipsec_agent.core.observed import Charon
from ipsec_agent.core.orphans import renewal
from ipsec_agent.core.pacing import lot
from ipsec_agent.core.words import several

NAME = "ipsec-trial-"
"""How the names of the connections begin."""

SAMPLE = 8
"""Peers that are asked before a reload; each answer costs both VMs a signature."""

SHOWN = 5
"""Peers that a refusal names."""

BOUND, BOUND_OF_SAMPLE = 60.0, 34.0
"""Seconds from its beginning after which a rehearsal has asked all that it asks, by `reload
--dry-run` and before a reload: half of it for what is to come, half to show those who refuse what
is in force."""


class Answer(enum.StrEnum):
    """What a peer says to a certificate."""

    ACCEPTED = "accepted"
    REFUSED = "refused"
    SILENT = "silent"
    NOT_ASKED = "not asked"
    TOO_LATE = "not asked in time"


class Asked(Struct, frozen=True):
    """A peer, and what it said.

    Attributes:
        reason: the code of the problem that charon's log names, "" where it names none.
    """

    peer: Address
    answer: Answer
    reason: str = ""

    def __str__(self) -> str:
        return f"{self.peer}: {self.answer}" + (f" ({self.reason})" if self.reason else "")


def differs(new: Config, in_force: Config) -> bool:
    """Whether peers may judge this VM, or it them, otherwise than now."""
    return new.certificate != in_force.certificate or _trusted(new) != _trusted(in_force)


def _trusted(config: Config) -> frozenset[bytes]:
    return frozenset(one.certificate for one in config.credentials.authorities)


def holds(config: Config, now: datetime) -> bool:
    """Whether all of its certificates do. What does not hold is replaced, whoever refuses."""
    return all(one.not_before <= now < one.not_after for one in config.certificates)


def known(charon: Charon | None, most: int | None = None) -> tuple[Pair, ...]:
    """The pairs with an SA that carries traffic, each VM in an order of its own."""
    sas = charon.sas if charon is not None and charon.responsive else ()
    pairs = {
        (sa.local, sa.remote)
        for sa in sas
        if any(child.state == "INSTALLED" for child in sa.children)
    }
    return tuple(sorted(pairs, key=lambda pair: (lot(pair), pair[0].version, pair)))[:most]


def rehearsal(desired: Desired, pair: Pair) -> Connection | None:
    """The connection by which a peer is asked; None where nothing is encrypted with it."""
    made = renewal(desired, pair)
    if made is None or made.settings is None:
        return None
    name = f"{NAME}{pair[1]}"
    (child,) = made.children
    return replace(made, name=name, children=(replace(child, name=name),))


def refused_by_most(asked: Iterable[Asked]) -> bool:
    """Whether more of the peers that answered refuse it than accept it.

    One VM that was broken into must not veto the rotation that shuts it out.
    """
    answers = [one.answer for one in asked]
    return answers.count(Answer.REFUSED) > answers.count(Answer.ACCEPTED)


def told(asked: Iterable[Asked]) -> str:
    """Such as: 6 of 8 peers that answered refuse it: 10.0.1.9: refused (peer-refuses-us)."""
    found = tuple(asked)
    refused = [one for one in found if one.answer is Answer.REFUSED]
    answered = sum(one.answer in {Answer.ACCEPTED, Answer.REFUSED} for one in found)
    more = f" and {len(refused) - SHOWN} more" if len(refused) > SHOWN else ""
    shown = ", ".join(
        f"{one.peer}" + (f" ({one.reason})" if one.reason else "") for one in refused[:SHOWN]
    )
    return f"{len(refused)} of {several(answered, 'peer')} that answered refuse it: {shown}{more}"
