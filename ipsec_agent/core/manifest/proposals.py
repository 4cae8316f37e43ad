"""Proposals as the add-on's operators write them, checked word by word.

The words are strongSwan's (src/libstrongswan/crypto/proposal/proposal_keywords_static.txt, without
ciphers that nobody should begin to use); the combinations are those that charon 5.9.8 was seen to
load. charon would also load ESP that encrypts nothing: `null` and `aes128gmac`.
"""

import re

from ipsec_agent.core.manifest.complaint import shown

AEAD = re.compile(
    r"(aes(128|192|256)(gcm|ccm)|camellia(128|192|256)ccm)(8|12|16|64|96|128)"
    r"|aes(128|192|256)(gcm|ccm)|chacha20poly1305(compat)?"
)
CLASSIC = re.compile(r"aes|camellia|(aes|camellia)(128|192|256)(ctr)?|3des")
CLEAR = re.compile(r"null|aes(128|192|256)gmac")
INTEGRITY = re.compile(
    r"sha|sha1|sha1_160|sha2?_?256(_96)?|sha2?_?384|sha2?_?512|aesxcbc|aescmac|camelliaxcbc"
    r"|md5|md5_128"
)
PRF = re.compile(r"prf(sha1|sha256|sha384|sha512|aesxcbc|aescmac|camelliaxcbc|md5)")
KEY_EXCHANGE = re.compile(
    r"modp(768|1024|1536|2048|3072|4096|6144|8192|1024s160|2048s224|2048s256)"
    r"|ecp(192|224|256|384|521)|ecp(224|256|384|512)bp|curve25519|curve448|x25519|x448"
)
ADDITIONAL = re.compile(rf"ke[1-7]_(?P<method>none|mlkem(512|768|1024)|{KEY_EXCHANGE.pattern})")
"""Key exchanges that come on top of another (RFC 9370; strongSwan since 6.0), such as ML-KEM
against quantum computers."""

SEQUENCE = re.compile(r"(no)?esn")
KINDS = (AEAD, CLASSIC, INTEGRITY, PRF, KEY_EXCHANGE, ADDITIONAL, SEQUENCE)
WEAK = re.compile(
    r"3des|md5(_128)?|prfmd5|modp(768|1024|1536|1024s160)|sha|sha1(_160)?|prfsha1|ecp(192|224)"
)


def cleaned(text: str) -> str:
    """A proposal without the add-on's `!`, which says "only these", as ours always do."""
    return text.strip().removesuffix("!").strip().lower()


def strict(text: str) -> bool:
    """Whether it has the `!`: nothing may be added to such a proposal."""
    return text.strip().endswith("!")


def additional(proposal: str) -> tuple[str, ...]:
    """The additional key exchanges of a proposal."""
    return tuple(word for word in proposal.split("-") if ADDITIONAL.fullmatch(word))


def classical(proposal: str) -> str:
    """A proposal without its additional key exchanges."""
    return "-".join(word for word in proposal.split("-") if not ADDITIONAL.fullmatch(word))


def fault(proposal: str, *, ike: bool) -> str:
    """What is wrong with a cleaned proposal, "" where nothing is."""
    words = proposal.split("-")
    if any(CLEAR.fullmatch(word) for word in words):
        return "it does not encrypt"
    for word in words:
        if not any(kind.fullmatch(word) for kind in KINDS):
            return f"{shown(word)} is not a known algorithm"
    return _combination(words, ike=ike)


def weakness(proposal: str) -> str:
    """The word of a proposal that is too weak today, "" where none is."""
    words = proposal.split("-")
    return next((word for word in words if WEAK.fullmatch(_method(word))), "")


def _method(word: str) -> str:
    found = ADDITIONAL.fullmatch(word)
    return found["method"] if found else word


def _combination(words: list[str], *, ike: bool) -> str:
    """What is missing or too much, "" where charon would load it and it protects."""
    aead, classic, integrity, prf, exchange, more = (
        any(kind.fullmatch(word) for word in words)
        for kind in (AEAD, CLASSIC, INTEGRITY, PRF, KEY_EXCHANGE, ADDITIONAL)
    )
    faults = (
        (aead and classic, "it mixes AEAD with other encryption: write two proposals"),
        (not aead and not classic, "it has no encryption algorithm, such as aes128gcm16"),
        (classic and not integrity, "it has no integrity algorithm, such as sha256"),
        (more and not exchange, "an additional key exchange needs one before it, such as x25519"),
        (ike and not exchange, "it has no key exchange, such as ecp256"),
        (ike and not prf and not integrity, "it has no PRF, such as prfsha256"),
        (not ike and prf, "a PRF belongs to ike_proposals"),
    )
    return next((text for wrong, text in faults if wrong), "")
