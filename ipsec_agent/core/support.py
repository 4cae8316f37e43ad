"""What of a VM may leave it for support: the config without its key, others' texts without keys.

A text of ours has no secret anyway. What others wrote (charon's log with log_level 3 or 4, the
kernel's SAs) may have: every long run of hexadecimal or base64 is taken out, whatever it is.
"""

import re
from collections.abc import Iterable
from typing import Any

from msgspec import to_builtins

from ipsec_agent.core.config import Config
from ipsec_agent.core.manifest.agent_section import AGENT_KEYS, CHARON_KEYS
from ipsec_agent.core.manifest.parser import PROPERTIES

REMOVED = "(removed)"

PEM = re.compile(r"-----BEGIN [A-Z0-9 ]+-----.*?(-----END [A-Z0-9 ]+-----|\Z)", re.DOTALL)
BREAK = r"(?:\s*\n|(?:\\r)?\\n)[ \t]*"
"""The end of a line, also as JSON writes it."""

END = r"""[ \t]*(?=\n|\\[nr]|["',]|\Z)"""

HEXADECIMAL = re.compile(
    r"(?:(?<![0-9A-Za-z])|(?<=\\[nrt]))(?:0x)?[0-9A-Fa-f]{32,}(?![0-9A-Za-z])"
    rf"(?:{BREAK}[0-9A-Fa-f]{{2,}}{END})*"
)
"""With what may be further lines of it."""

KERNEL_KEY = re.compile(r"\b((?:enc|auth|auth-trunc|aead) \S+ )0x[0-9A-Fa-f]+")
"""As `ip xfrm state` prints keys, the shortest, too."""

BYTES = re.compile(r"([0-9A-Fa-f]{2}[ :]+){7,}[0-9A-Fa-f]{2}\b.*")
"""A line of charon's dumps has 16 bytes, and their letters behind them; 8 are two words."""

LETTER = r"(?:[A-Za-z0-9+/]|\\/)"
EITHER = r"(?:[A-Za-z0-9+/_-]|\\/)"
MIXED = (
    r"(?=[a-z0-9+/_\\-]*[A-Z])(?=[A-Z0-9+/_\\-]*[a-z])(?=[A-Za-z+/_\\-]*[0-9])"
    rf"{EITHER}{{40,}}={{0,2}}(?![A-Za-z0-9+/_-])"
)
LAST = rf"(?:{BREAK}{EITHER}{{2,}}={{0,2}}{END})?"
BASE64 = re.compile(rf"(?<![A-Za-z0-9+/_-]){MIXED}(?:{BREAK}{EITHER}{{40,}}={{0,2}})*{LAST}")
"""Base64 and base64url with all lines, and what may be the last one; 40 of them have letters of
both kinds and digits, which neither a path nor the name of an algorithm has."""

CAPITALS = re.compile(rf"(?<![A-Za-z0-9+/])(?=[a-z0-9+/]*[A-Z]){LETTER}{{40,}}={{0,2}}{LAST}")
"""A run without one of the three, such as base32; a path has no capital letter."""

TOKEN = re.compile(
    r"(?<![A-Za-z0-9_-])(?=[a-z0-9_-]*[A-Z])(?=[A-Z0-9_-]*[a-z])(?=[A-Za-z_-]*[0-9])"
    r"[A-Za-z0-9_-]{32,}={0,2}"
)
"""Tokens. A name of an algorithm has no small letter."""

URL = re.compile(r"""\b([A-Za-z][A-Za-z0-9+.-]*://)[^\s/'"<>]*@""")
"""With a user, and perhaps a password."""

HEADER = re.compile(r"""\b(authorization["']?\s*[:=]\s*["']?)[^"'\n]+""", re.IGNORECASE)

SHORT_DUMP = re.compile(r"^(.*\b\d+: )([0-9A-Fa-f]{2} ){1,15}[0-9A-Fa-f]{2}\s.*$", re.MULTILINE)
SECRET = re.compile(r"secret|passw|pin$|token|psk|key", re.IGNORECASE)
"""Names of settings whose values are not shown."""

WORDS = (
    PROPERTIES
    | AGENT_KEYS
    | CHARON_KEYS
    | {
        *(
            "addons",
            "jobs",
            "name",
            "release",
            "releases",
            "properties",
            "ipsec",
            "agent",
            "version",
        ),
        *("settings", "include", "exclude", "update", "ca", "certificate", "private_key"),
    }
)
"""Keys that may be shown of a config, however broken it is."""

KEY_LINE = re.compile(r"^(\s*(?:- )*)([a-z_]+):")


def scrubbed(text: str) -> str:
    """The text without anything that could be a key."""
    text = HEADER.sub(rf"\1{REMOVED}", URL.sub(rf"\1{REMOVED}@", text))
    text = KERNEL_KEY.sub(rf"\1{REMOVED}", text)
    for pattern in (PEM, BYTES, HEXADECIMAL, BASE64, CAPITALS, TOKEN):
        text = pattern.sub(REMOVED, text)
    return SHORT_DUMP.sub(rf"\1{REMOVED}", text)


def outline(text: str) -> str:
    """The keys of a config by line and indentation, without a value."""
    return "".join(_outlined(number, line) for number, line in enumerate(text.splitlines(), 1))


def _outlined(number: int, line: str) -> str:
    found = KEY_LINE.match(line)
    if found is None or found[2] not in WORDS:
        indented = len(line) - len(line.lstrip())
        return f"{number:5} {' ' * min(indented, 80)}{'…' if line.strip() else ''}\n"
    return f"{number:5} {found[1]}{found[2]}:{' …' if line[found.end() :].strip() else ''}\n"


def shown_config(config: Config) -> dict[str, Any]:
    """The config in force as JSON's types; of the certificates their facts."""
    secret = {"credentials", "certificate", "certificates", "agent"}
    agent = config.agent
    return {
        **{
            name: _built(getattr(config, name))
            for name in config.__struct_fields__
            if name not in secret
        },
        "certificates": [_built(one) for one in config.certificates],
        "agent": {
            **{
                name: _built(getattr(agent, name))
                for name in agent.__struct_fields__
                if name != "charon"
            },
            "charon": {
                **{
                    name: _built(getattr(agent.charon, name))
                    for name in agent.charon.__struct_fields__
                    if name != "settings"
                },
                "settings": _settings(agent.charon.settings),
            },
        },
    }


def _settings(settings: Iterable[tuple[str, str]]) -> dict[str, str]:
    return {key: REMOVED if SECRET.search(key) else scrubbed(value) for key, value in settings}


def _built(value: object) -> Any:
    return to_builtins(value, enc_hook=str)
