"""Finds what is of a private key in anything that is written, in every form it could have."""

import base64
from collections.abc import Iterator

from cryptography.hazmat.primitives.asymmetric import rsa

from tests.certificates import Key

PIECE = 12
"""Bytes of a secret number that are looked for together: 16 letters of base64, as every line of a
PEM has some of; nobody else writes them by chance."""


def numbers(key: Key) -> tuple[int, ...]:
    """The secret numbers of a key; what else is in its file is in the certificate, too."""
    if isinstance(key, rsa.RSAPrivateKey):
        private = key.private_numbers()
        return (private.d, private.p, private.q, private.dmp1, private.dmq1, private.iqmp)
    return (key.private_numbers().private_value,)


def needles(key: Key) -> Iterator[bytes]:
    """Pieces of the secret numbers: raw, hexadecimal, decimal, base64 at each of its offsets."""
    for number in numbers(key):
        raw = number.to_bytes((number.bit_length() + 7) // 8, "big")
        for at in range(0, len(raw) - PIECE + 1, PIECE):
            piece = raw[at : at + PIECE]
            yield from (piece, piece[::-1], piece.hex().encode())
            # A number may begin at any of three places in base64's groups of three bytes.
            for offset in range(3):
                part = raw[at + offset : at + offset + PIECE]
                if len(part) == PIECE:
                    yield base64.b64encode(part)
        yield str(number)[:40].encode()


def found_in(written: bytes | str, key: Key) -> bool:
    """Whether anything of a key is in what was written, also broken into lines."""
    raw = written.encode(errors="surrogateescape") if isinstance(written, str) else written
    joined = raw.replace(b"\\n", b"").translate(None, b" \t\r\n:")
    lower = joined.lower()
    return any(
        needle in raw or needle in joined or (needle.isascii() and needle.lower() in lower)
        for needle in needles(key)
    )
