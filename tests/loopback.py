"""An address of this machine's own for each process of the tests.

They run beside each other, and a port that one of them has just given back may be the next that
another is given.
"""

import os
from ipaddress import IPv4Address

LOOPBACK = IPv4Address(0x7F000000 | os.getpid())
"""All of 127.0.0.0/8 is (lo(4) has no more to say); a pid has 22 bits at the most."""
