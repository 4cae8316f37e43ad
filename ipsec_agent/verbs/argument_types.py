"""What the values of arguments must look like; what does not is refused with exit code 2."""

import argparse
from collections.abc import Callable

from ipsec_agent.core.manifest.addresses import as_ipv4, read_address


def given(text: str) -> str:
    """A text; a variable of a shell that is not set gives none."""
    if not text:
        raise argparse.ArgumentTypeError("must not be empty")
    return text


def address(text: str) -> str:
    """An IP address, as the agent writes it: IPv4 that is written as IPv6 as IPv4."""
    try:
        found = read_address(text)
        return str(as_ipv4(found) or found)
    except ValueError:
        raise argparse.ArgumentTypeError(
            f"{text!r} is not an IP address; write, for example, 10.0.1.9"
        ) from None


def whole(least: int, most: int) -> Callable[[str], int]:
    """A whole number within bounds, in decimal digits."""

    def number(text: str) -> int:
        found = int(text) if text.isdecimal() and len(text) <= len(str(most)) else least - 1
        if not least <= found <= most:
            raise argparse.ArgumentTypeError(f"must be a whole number from {least} to {most}")
        return found

    return number


def seconds(most: float) -> Callable[[str], float]:
    """Seconds, more than none; parts of one may be given."""

    def number(text: str) -> float:
        try:
            found = float(text)
        except ValueError:
            found = 0.0
        if not 0 < found <= most:
            raise argparse.ArgumentTypeError(f"must be seconds, up to {most:g}")
        return found

    return number
