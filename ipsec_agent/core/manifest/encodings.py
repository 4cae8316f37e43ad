"""The text of a file's bytes; where they are not UTF-8, what they are and what to do."""

import codecs
import re
from shlex import quote

ENCODINGS = (
    # The marks of UTF-32 begin with those of UTF-16.
    ("UTF-32LE", codecs.BOM_UTF32_LE, "x000"),
    ("UTF-32BE", codecs.BOM_UTF32_BE, "000x"),
    ("UTF-16LE", codecs.BOM_UTF16_LE, "x0"),
    ("UTF-16BE", codecs.BOM_UTF16_BE, "0x"),
)
"""Each with its mark, and which of its first bytes are 0 without one: a config begins in ASCII."""

OTHER = "WINDOWS-1252"
"""What editors write else; ISO 8859-1 is a part of it."""

CONTROL = re.compile(rb"[\x00-\x08\x0e-\x1a\x1c-\x1f\x7f]")
"""What no text of one byte for each letter has; a terminal's colours begin with 1b."""


class NotUtf8Error(Exception):
    """The bytes are not UTF-8.

    Attributes:
        what: they are, without a subject.
        remedy: what to do.
    """

    def __init__(self, what: str, remedy: str) -> None:
        super().__init__(what)
        self.what = what
        self.remedy = remedy


def decoded(raw: bytes, name: str) -> str:
    """The text of a file.

    Args:
        name: of the file.

    Raises:
        NotUtf8Error: its bytes are not UTF-8.
    """
    if raw and not raw.strip(b"\0"):
        raise NotUtf8Error(
            "holds nothing but zero bytes", "write it again: its text is lost, as by a power cut"
        )
    if wide := _wide(raw):
        raise NotUtf8Error(f"is {wide} text", _convert(wide, name))
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        column = error.start - raw.rfind(b"\n", 0, error.start)
        where = f"is not UTF-8 text (line {line}, byte {column})"
        if CONTROL.search(raw):
            raise NotUtf8Error(where, "check that this is the right file") from None
        raise NotUtf8Error(where, _convert(OTHER, name)) from None


def _wide(raw: bytes) -> str:
    """The encoding of more than one byte for each letter, "" for others."""
    for kind, mark, zeros in ENCODINGS:
        begin = "".join("x" if byte else "0" for byte in raw[: len(zeros)])
        if raw.startswith(mark) or begin == zeros:
            return kind
    return ""


def _convert(kind: str, name: str) -> str:
    new = quote(f"{name}.new")
    return (
        f"save it as UTF-8: `umask 077; iconv -f {kind} -t UTF-8 -o {new} {quote(name)}`, and put"
        f" {new} in its place"
    )
