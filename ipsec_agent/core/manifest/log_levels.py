"""charon's log levels: at which of them its log holds what must not get around."""

import re

LEVEL_REMEDY = "2 at most, unless for a test with keys that are thrown away"

# strongswan.conf(5), LOGGER CONFIGURATION.
_SECRETS = {3: "the raw data of messages", 4: "keys, the private ones included,"}

_LEVEL = re.compile(r"(filelog|syslog)\.[^.]+\.[a-z_]+|journal\.[a-z_]+")
"""A logger's setting; of those only a level is a number."""


def level_doubt(level: int) -> str:
    """What a log of this level holds, "" where that does no harm."""
    # charon takes a higher one for the highest.
    secret = _SECRETS.get(min(level, max(_SECRETS)))
    return f"level {level} writes {secret} into charon's log" if secret else ""


def setting_doubt(key: str, value: str) -> str:
    """The same of a setting of strongswan.conf; "" for one that is no logger's level."""
    try:
        return level_doubt(int(value)) if _LEVEL.fullmatch(key) else ""
    except ValueError:
        return ""
