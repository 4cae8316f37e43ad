"""Where charon is looked for, and what is said where it is not."""

import sys

from ipsec_agent.host.charon_start import program_warnings


def test_a_program_that_is_not_there() -> None:
    """Who reloads is warned: charon runs still, and could not be started again."""
    (said,) = program_warnings("/usr/sbin/nochar")

    assert said.startswith("warning: charon is not at /usr/sbin/nochar, and its next start fails")
    assert "agent.charon.program" in said
    assert program_warnings(sys.executable) == ()
