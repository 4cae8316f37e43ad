"""What a verb says where no agent runs. Imports little: `status` is to start at once."""

from ipsec_agent.errors import ControlError
from ipsec_agent.host.own_process import complain

NOT_RUNNING = 3
"""LSB's exit code of `status` for a program that is not running."""


def tell_absence(error: ControlError) -> int:
    """Say it, and what to do; the exit code."""
    complain(f"ipsec-agent: {error.message}\n  hint: {error.hint}\n")
    return NOT_RUNNING
