"""Splits PEM text (RFC 7468) into its blocks; a text may have lost its line breaks on the way."""

import base64
import binascii
import re
import unicodedata

from ipsec_agent.core.model import Secret
from ipsec_agent.core.terse import Terse

MARK = re.compile(r"-----(BEGIN|END) ([A-Z0-9 ]{1,40})-----")


FOREIGN = re.compile(rb"[^A-Za-z0-9+/=\s\x80-\xff]|[\xc2-\xf4][\x80-\xbf]+")
"""A character that base64 does not have."""


class Block(Terse, frozen=True):
    """One block.

    Attributes:
        label: such as CERTIFICATE.
        body: the text between BEGIN and END, which may be a key.
        ended: whether its END line is there.
    """

    unshown = ("body",)

    label: str
    body: Secret
    ended: bool

    @property
    def placeholder(self) -> bool:
        """Whether this is the guide's `...` or EXAMPLE in place of the real thing."""
        return "EXAMPLE" in self.label or self.says(b"EXAMPLE") or self.says(b"...")

    def says(self, word: bytes) -> bool:
        """Whether the body contains a word."""
        return self.body.find(word) >= 0

    def foreign(self) -> str:
        """The name of the first character that base64 does not have, "" without one."""
        found = FOREIGN.search(self.body)
        if found is None:
            return ""
        return unicodedata.name(found[0].decode(errors="replace"), "without a name").lower()

    def der(self) -> bytes | None:
        """The decoded bytes, None where the text is damaged."""
        try:
            return base64.b64decode(b"".join(self.body.split()), validate=True) or None
        except binascii.Error:
            return None


def has_key(text: str) -> bool:
    """Whether a text has a private key, and not only a placeholder for one."""
    return any("PRIVATE KEY" in one.label and not one.placeholder for one in blocks(text))


def blocks(text: str) -> tuple[Block, ...]:
    """The blocks in their order; text around them is ignored."""
    found: list[Block] = []
    begin: re.Match[str] | None = None
    for mark in MARK.finditer(text):
        if begin is not None:
            body = Secret(text[begin.end() : mark.start()].encode(errors="replace"))
            found.append(Block(begin[2], body, mark[0] == f"-----END {begin[2]}-----"))
        begin = mark if mark[1] == "BEGIN" else None
    if begin is not None:
        found.append(Block(begin[2], Secret(text[begin.end() :].encode(errors="replace")), False))
    return tuple(found)
