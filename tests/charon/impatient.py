"""The agent as its users run it, but what must last for a minute to be shown lasts for a moment,
and what is told for a minute after its last packet is told for a few seconds.

As a program it gets the command line of the agent, its interpreter included.
"""

import sys

from ipsec_agent.cli import main
from ipsec_agent.core.problems import guard, guard_drops
from ipsec_agent.core.problems.damping import PATIENCE, Patience

SHOWN_AFTER = 2.0
"""Seconds after which a config that is broken is told of."""

TOLD_FOR = 8
"""Seconds after its last packet for which a sender of clear is told of."""

if __name__ == "__main__":
    PATIENCE["config-refused"] = Patience(after=SHOWN_AFTER)
    PATIENCE["source-not-on-link"] = Patience(after=1)
    guard.RECENT = guard.RECENT_FLOW = guard_drops.SAID_FOR = TOLD_FOR
    sys.exit(main(sys.argv[sys.argv.index("ipsec_agent") + 1 :]))
