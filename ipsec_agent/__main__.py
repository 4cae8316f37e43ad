"""`python -m ipsec_agent` and the program `ipsec-agent`: hands over to the command line."""

import sys

from ipsec_agent.cli import main

if __name__ == "__main__":
    sys.exit(main())
