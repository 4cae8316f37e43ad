"""How a number of things is said, and how long a certificate lasts."""

import math

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
