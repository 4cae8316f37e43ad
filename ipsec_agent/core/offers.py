"""Proposals against what the running charon offers: one that it does not know would cost all peers.

charon refuses a connection with a word that it cannot read, and fails to negotiate an exchange that
none of its plugins has. Additional key exchanges (RFC 9370) it has since 6.0.
"""

import re

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.proposals import ADDITIONAL
from ipsec_agent.core.observed import Charon

FIRST_WITH_ADDITIONAL = 6
"""Major version of strongSwan."""

CURVES = {
    "x25519": "CURVE_25519",
    "curve25519": "CURVE_25519",
    "x448": "CURVE_448",
    "curve448": "CURVE_448",
}
NUMBERED = re.compile(r"(modp|ecp|mlkem)(\d+)(?:s(\d+))?(bp)?")
FAMILIES = {"modp": "MODP", "ecp": "ECP", "mlkem": "ML_KEM"}


class Offers(Struct, frozen=True):
    """What a charon can negotiate.

    Attributes:
        exchanges: by charon's names, such as CURVE_25519.
        additional: it knows additional key exchanges.
    """

    exchanges: frozenset[str]
    additional: bool


def offers_of(charon: Charon | None) -> Offers | None:
    """What a charon has told of itself; None while it has not."""
    if charon is None or not charon.exchanges:
        return None
    major = charon.version.partition(".")[0]
    return Offers(charon.exchanges, major.isdecimal() and int(major) >= FIRST_WITH_ADDITIONAL)


def lacking(proposal: str, offers: Offers | None) -> tuple[str, ...]:
    """The words of a proposal that a charon cannot do; none where it is not known."""
    if offers is None:
        return ()
    return tuple(word for word in proposal.split("-") if not _offered(word, offers))


def usable(proposals: tuple[str, ...], offers: Offers | None) -> tuple[str, ...]:
    """Those that a charon can do. Where there is none, all: nothing weaker takes their place, and
    charon says what it refuses."""
    return tuple(one for one in proposals if not lacking(one, offers)) or proposals


def offered(config: Config, offers: Offers | None) -> Config:
    """The config with what this charon can negotiate; the same one where that is all of it."""
    ike, esp = usable(config.ike_proposals, offers), usable(config.esp_proposals, offers)
    if (ike, esp) == (config.ike_proposals, config.esp_proposals):
        return config
    return replace(config, ike_proposals=ike, esp_proposals=esp)


def _offered(word: str, offers: Offers) -> bool:
    additional = ADDITIONAL.fullmatch(word)
    if additional and not offers.additional:
        return False
    name = _name(additional["method"] if additional else word)
    return not name or name in offers.exchanges


def _name(word: str) -> str:
    """charon's name of a key exchange, "" of what is none (key_exchange.c)."""
    if word in CURVES:
        return CURVES[word]
    found = NUMBERED.fullmatch(word)
    if found is None:
        return ""
    family, *rest = found.groups()
    return "_".join((FAMILIES[family], *(part.upper() for part in rest if part)))
