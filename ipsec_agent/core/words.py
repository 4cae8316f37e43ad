"""How a number of things is said."""


def several(number: int, thing: str, things: str = "") -> str:
    """`1 packet`, `2 packets`; the plural is given where it is more than an s."""
    return f"{number} {thing}" if number == 1 else f"{number} {things or thing + 's'}"
