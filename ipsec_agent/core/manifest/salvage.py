"""Where things are by a config that is not YAML: its section `agent:`, read alone."""

import itertools
import re
import textwrap
from datetime import datetime

from ipsec_agent.core.config import AgentConfig
from ipsec_agent.core.manifest.parser import parse

HEAD = re.compile(r" *agent *:")
MOST = 8
"""Lines that may begin the section, of which one is tried after the other."""

REST = "ipsec: {log_level: 1}\n"
"""What makes a config of the section, in which nothing else is looked for."""


def salvaged(text: str, now: datetime) -> AgentConfig | None:
    """The section as far as it can be read; None without one that is YAML.

    A mistake is mostly in a certificate that was pasted. Who ends or asks an agent must find it
    all the same.
    """
    lines = text.expandtabs().splitlines()
    # The least far in counts: what is further in may be another add-on's, or within a text.
    heads = sorted(
        (number for number, line in enumerate(lines) if HEAD.match(line)),
        key=lambda number: lines[number].index("agent"),
    )
    read = (
        parse(f"{REST}{_section(lines[number:])}\n", file="", now=now).agent
        for number in itertools.islice(heads, MOST)
    )
    return next((found for found in read if found is not None), None)


def _section(lines: list[str]) -> str:
    """The first line and all that are further in, at the left margin."""
    head, deeper = lines[0], lines[0][: lines[0].index("agent")] + " "
    below = itertools.takewhile(lambda one: not one.strip() or one.startswith(deeper), lines[1:])
    return textwrap.dedent("\n".join((head, *below)))
