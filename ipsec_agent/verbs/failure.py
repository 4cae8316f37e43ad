"""How a verb says that it failed, and its exit code: one sentence, what to do, and with --json a
document, too. Imports little: `status` is to start at once."""

import argparse
import json

from ipsec_agent.errors import AgentError, UsageError
from ipsec_agent.host.own_process import complain, say
from ipsec_agent.verbs.commands import repeatable

FAILED, WRONG_CALL, NOT_RUNNING = 1, 2, 3
"""Exit codes; 3 is LSB's of `status` for a program that is not running."""


def tell(error: AgentError, chosen: argparse.Namespace, code: int = FAILED) -> int:
    """Say it; the exit code, which is 2 for a wrong command line, whatever the VM is like."""
    complaints = error.complaints
    hint = repeatable(error.hint, chosen)
    complain("".join(f"{repeatable(complaint, chosen)}\n" for complaint in complaints))
    complain(f"ipsec-agent: {error.message}\n" + (f"  hint: {hint}\n" if hint else ""))
    if isinstance(error, UsageError):
        return WRONG_CALL
    if getattr(chosen, "json", False):
        found = {"schema": 1, "error": error.message, "hint": hint}
        more = {"complaints": list(complaints)} if complaints else {}
        say(json.dumps(found | more) + "\n")
    return code
