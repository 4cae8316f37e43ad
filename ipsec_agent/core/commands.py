"""Commands of ours in messages: they carry the `--config` and `--socket` that they are about."""

import re
import shlex

from msgspec import Struct

DEFAULT_CONFIG = "/etc/ipsec-agent/ipsec.yml"
DEFAULT_SOCKET = "/run/ipsec-agent/control.sock"

QUOTED = re.compile(
    r"(?<!\bby )`((?:sudo )?ipsec-agent [a-z][^`]*)`(?! (?:on that VM|there|has ended))"
)
"""Of this VM, and to be run: what is to be run on another one has paths of its own, and by what
something was done before is not to be typed."""

PROGRAM = re.compile(r"(?:sudo )?ipsec-agent ([a-z]+)(?: (up|down|status)\b)?")

BOTH = ("--config", "--socket")
TAKES = {
    "run": ("--config",),
    "check": ("--config",),
    "plan": ("--config",),
    "status": ("--socket",),
    "verify": ("--socket",),
    "metrics": ("--socket",),
    "doctor": BOTH,
    "reload": ("--socket",),
    "renew": ("--socket",),
    "stop": ("--socket",),
    "drain": BOTH,
    "guard up": BOTH,
    "guard down": BOTH,
    "guard status": ("--config",),
    "bundle": BOTH,
}
"""What each verb takes of them; the others take neither."""

BY_PLACE = frozenset({"check", "plan"})
"""Verbs that take the config also without the name of the option."""

WITH_VALUE = frozenset({"--address", "--baseline", "--to"})
"""Options of these verbs that take a value."""


class About(Struct, frozen=True):
    """The agent that messages are about.

    Attributes:
        config: path of its config, "" where that is not known.
        socket: path of its control socket, "" where that is not known.
    """

    config: str = ""
    socket: str = ""

    def text(self, said: str) -> str:
        """A text; each command of ours in backquotes works for this agent."""
        return QUOTED.sub(lambda found: f"`{self.command(found[1])}`", said)

    def command(self, line: str) -> str:
        """A command, which may be piped into another one; as it is where it is not ours."""
        found = PROGRAM.match(line)
        verb = " ".join(filter(None, found.groups())) if found else ""
        takes = TAKES.get(verb) or TAKES.get(verb.partition(" ")[0], ())
        own, pipe, rest = line.partition(" | ")
        if self.config and verb == "certs":
            own = own.replace(DEFAULT_CONFIG, shlex.quote(self.config))
        words = own.split()
        for option, value, usual in (
            ("--config", self.config, DEFAULT_CONFIG),
            ("--socket", self.socket, DEFAULT_SOCKET),
        ):
            known = option in words or (option == "--config" and _placed(verb, words))
            if option in takes and value not in {"", usual} and not known:
                own += f" {option} {shlex.quote(value)}"
        return own + pipe + rest


def _placed(verb: str, words: list[str]) -> bool:
    """Whether a command names its config without the option."""
    if verb not in BY_PLACE:
        return False
    after = words[words.index(verb) + 1 :]
    return any(
        not word.startswith("-") and before not in WITH_VALUE
        for before, word in zip(["", *after], after, strict=False)
    )
