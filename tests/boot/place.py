"""Where everything of the boot test is: addresses, namespaces, files."""

from pathlib import Path

HUB, PEER_NS, BARE_NS, VM_NS = "hub", "peer", "bare", "vm"
"""The bridge; a VM with IPsec; one without, in the same subnet; and the guest's own namespace."""

VM, PEER, BARE = "10.9.0.1", "10.9.0.2", "10.9.0.3"
PORT = 9000

LAB = Path("/run/lab")
"""The flows' tallies and the peer's files, in the guest."""

RESULTS = Path("/results")
LINE = Path("/dev/ttyS1")

SAVED_GUARD = Path("/var/lib/ipsec-agent/guard.nft")
CONFIG = Path("/etc/ipsec-agent/ipsec.yml")
VCAP = Path("/var/vcap")
RUN_DIR = Path("/run/ipsec-agent")
CONTROL = str(RUN_DIR / "control.sock")
