"""How a number of things and a time are said, and what of a text may be shown and written."""

import math
import re
from datetime import UTC, datetime

OPTIONAL = (
    "packets pass in clear with every peer that has no IPsec; remove it once all VMs have IPsec"
)
"""What `optional: true` means, as `check` and `plan` say it."""


def several(number: int, thing: str, things: str = "") -> str:
    """`1 packet`, `2 packets`; the plural is given where it is more than an s."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"


def remaining(days: float) -> str:
    """So many days, in words, and never more than there are: hours on the last day."""
    if days * 24 < 1:
        return "less than an hour"
    return several(int(days * 24), "hour") if days < 1 else several(int(days), "day")


def lasting(days: float) -> str:
    """How long a certificate lasts, or for how long it has not; days, negative once it ended."""
    return f"{remaining(days)} left" if days >= 0 else f"EXPIRED {remaining(-days)} ago"


def tenths(days: float) -> float:
    """Days to a tenth, and never more than there are: below 0 from the end on."""
    return math.floor(days * 10) / 10


def duration(seconds: float, hours: str = "hours") -> str:
    """Seconds as an operator says them: `40 s`, `5 min`, `3 hours`, `2 days`.

    Args:
        hours: what several of them are called.
    """
    for length, unit in ((86400, "days"), (3600, hours), (60, "min")):
        if seconds >= 2 * length:
            return f"{seconds // length:.0f} {unit}"
    return f"{max(seconds, 0):.0f} s"


_SIZES = ("B", "KiB", "MiB", "GiB", "TiB", "PiB")
_STEP = 1024


def size(number: float) -> str:
    """Bytes as a person reads them: `999 B`, `1.2 KiB`, `34 MiB`."""
    unit = 0
    # What would be shown as 1024 of a unit is 1 of the next.
    while number >= _STEP - 0.5 and unit < len(_SIZES) - 1:
        number, unit = number / _STEP, unit + 1
    shown = f"{number:.1f}" if unit and number < 9.95 else f"{number:.0f}"  # noqa: PLR2004 - 2 digits
    return f"{shown} {_SIZES[unit]}"


_FIRST = datetime(1, 1, 1, tzinfo=UTC).timestamp()
_LAST = datetime(9999, 12, 31, 23, 59, 59, tzinfo=UTC).timestamp()


def moment(seconds: float) -> str:
    """Seconds since the epoch as people write them: `2027-01-15 08:00 UTC`, whatever they are."""
    return _written(seconds, "%Y-%m-%d %H:%M UTC")


def instant(seconds: float) -> str:
    """The same to the second, and never later than it is: `2027-01-15 08:00:09 UTC`."""
    return _written(seconds, "%Y-%m-%d %H:%M:%S UTC")


def day(seconds: float) -> str:
    """Only the day of it: `2027-01-15`."""
    return _written(seconds, "%Y-%m-%d")


def dated(subject: str, ends: float | None) -> str:
    """A certificate as a person tells it from another one of the same name; "" is not known."""
    if not subject or ends is None:
        return "a certificate that is not known"
    return f"{subject} (ends {day(ends)})"


def _written(seconds: float, form: str) -> str:
    """Of a time that no calendar has, only that: a file may have any."""
    if _FIRST <= seconds <= _LAST:
        return f"{datetime.fromtimestamp(math.floor(seconds), UTC):{form}}"
    return "a time before the year 1" if seconds < _FIRST else "a time after the year 9999"


def encodable(text: str) -> str:
    """The same where UTF-8 has it; a byte of a path that is none is written as `\\xff`."""
    try:
        text.encode()
    except UnicodeEncodeError:
        return "".join(map(_encodable, text))
    return text


_BYTES = range(0xDC80, 0xDD00)
"""What Python has for bytes that are no UTF-8 (PEP 383)."""


def _encodable(letter: str) -> str:
    number = ord(letter)
    if number in _BYTES:
        return f"\\x{number - 0xDC00:02x}"
    return f"\\u{number:04x}" if 0xD800 <= number < 0xE000 else letter  # noqa: PLR2004 - surrogates


LINES = "\n\t"
"""What stays of a text of several lines."""


def printable(text: str, instead: str = "\N{REPLACEMENT CHARACTER}", *, kept: str = "") -> str:
    """A text on which no terminal acts, whoever gave it: without line ends, colours and the like.

    Args:
        kept: characters that stay though they are not printable.
    """
    text = encodable(text)
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() or one in kept else instead for one in text)


def mentions(text: str, address: str) -> bool:
    """Whether a text names an address; 10.0.1.99 does not name 10.0.1.9."""
    return re.search(rf"(?<![\w.:]){re.escape(address)}(?![\w]|[.:]\w)", text) is not None
