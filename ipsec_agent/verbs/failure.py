"""How a verb says that it failed, and its exit code: one sentence, what to do, and with --json a
document, too. Imports little: `status` is to start at once."""

import argparse
import errno
import json
import sys

from ipsec_agent.errors import AgentError, UsageError
from ipsec_agent.host.exhausted import remedy
from ipsec_agent.host.own_process import complain, discard, say
from ipsec_agent.verbs.commands import repeatable

FAILED, WRONG_CALL, NOT_RUNNING = 1, 2, 3
"""Exit codes; 3 is LSB's of `status` for a program that is not running."""

READER_GONE = 141
"""Where nobody reads the output any more: what a shell says of a program that SIGPIPE has ended, as
it ends most."""

OUTPUT_LOST = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO, errno.EBADF, errno.EPIPE}
"""What writing to standard output fails with; files of ours have errors of their own."""


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


def unforeseen(error: OSError) -> int:
    """Say in one line what a verb could not foresee, of its output or of this process; the code."""
    if error.filename is None and error.errno in OUTPUT_LOST:
        discard(sys.stdout)
        if error.errno == errno.EPIPE:
            # The reader of a pipe has seen enough.
            return READER_GONE
        why = "standard output is closed" if error.errno == errno.EBADF else error.strerror
        complain(f"ipsec-agent: cannot write the output: {why}\n")
        return FAILED
    what = f"{error.filename}: " if error.filename else ""
    complain(f"ipsec-agent: {what}{error.strerror or error}\n")
    if hint := remedy(error):
        complain(f"  hint: {hint}\n")
    return FAILED
