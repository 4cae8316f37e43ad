"""The agent as its users run it, but what must last for a minute to be shown lasts for a moment.

As a program it gets the command line of the agent, its interpreter included.
"""

import sys

from ipsec_agent.cli import main
from ipsec_agent.core.problems.damping import PATIENCE, Patience

SHOWN_AFTER = 2.0
"""Seconds after which a config that is broken is told of."""

if __name__ == "__main__":
    PATIENCE["config-refused"] = Patience(after=SHOWN_AFTER)
    sys.exit(main(sys.argv[sys.argv.index("ipsec_agent") + 1 :]))
