"""Proposals as the add-on's operators write them, checked word by word.

The words are strongSwan's (src/libstrongswan/crypto/proposal/proposal_keywords_static.txt).
"""

import re

DEFAULT_ESP = ("aes128gcm16",)
DEFAULT_IKE = (
    "aes128gcm16-prfsha256-ecp256",
    "aes128-sha256-modp3072",
    "aes128-sha256-modp2048",
)
"""AES-GCM and SHA-256 as in the guide; the last one is what the add-on itself proposes."""

ENCRYPTION = re.compile(
    r"aes(128|192|256)?(gcm|ccm)(8|12|16|64|96|128)|aes(128|192|256)?(ctr)?|chacha20poly1305"
    r"|camellia(128|192|256)?|3des"
)
AEAD = re.compile(r"aes\d*(gcm|ccm)\d+|chacha20poly1305")
INTEGRITY = re.compile(r"sha(1|256|384|512)|aesxcbc|aescmac|aes(128|192|256)gmac|md5")
PRF = re.compile(r"prf(sha(1|256|384|512)|aesxcbc|aescmac|md5)")
KEY_EXCHANGE = re.compile(
    r"modp(768|1024|1536|2048|3072|4096|6144|8192)|ecp(192|224|256|384|521)(bp)?"
    r"|curve25519|curve448|x25519|x448"
)
WEAK = re.compile(r"3des|md5|prfmd5|modp(768|1024|1536)|sha1|prfsha1|des")


def cleaned(text: str) -> str:
    """A proposal without the add-on's `!`, which says "only these", as ours always do."""
    return text.strip().removesuffix("!").strip().lower()


def fault(proposal: str, *, ike: bool) -> str:
    """What is wrong with a cleaned proposal, "" where nothing is."""
    words = proposal.split("-")
    return _unknown(words) or _lacking(words, ike=ike)


def _unknown(words: list[str]) -> str:
    for word in words:
        if word.startswith("null"):
            return f"{word} would send the packets in clear"
        if not any(
            kind.fullmatch(word)
            for kind in (ENCRYPTION, INTEGRITY, PRF, KEY_EXCHANGE, re.compile("no?esn"))
        ):
            return f"{word!r} is no algorithm that strongSwan knows"
    return ""


def _lacking(words: list[str], *, ike: bool) -> str:
    if not any(ENCRYPTION.fullmatch(word) for word in words):
        return "it names no encryption, such as aes128gcm16"
    if ike and not any(KEY_EXCHANGE.fullmatch(word) for word in words):
        return "it names no key exchange, such as ecp256"
    aead = any(AEAD.fullmatch(word) for word in words)
    if not aead and not any(INTEGRITY.fullmatch(word) for word in words):
        return "it names no integrity algorithm, such as sha256"
    if ike and aead and not any(PRF.fullmatch(word) for word in words):
        return "it names no PRF, such as prfsha256"
    return ""


def weakness(proposal: str) -> str:
    """The word of a proposal that is too weak today, "" where none is."""
    return next((word for word in proposal.split("-") if WEAK.fullmatch(word)), "")
