"""What to do about a certificate that ends, by its kind; `check` and the status say the same."""

CLOCK_FIRST = (
    "compare the clock with another VM's first (`date -u`): it seems wrong; rotate only where it is"
    " right"
)
"""Of any certificate, while the clock is in doubt."""


def is_intermediate(subject: str, issuer: str) -> bool:
    """Whether a CA has another one above it, wherever the config lists it."""
    return subject != issuer


def sign_again(issuer: str, part: str) -> str:
    """How an intermediate is renewed: with its key, so that what it has signed stays good.

    Args:
        part: the property that has it, such as ca_certificates[0].
    """
    return (
        f"have {issuer}, which signed it, sign it again with the same key, and put that in its"
        f" place in {part}"
    )
