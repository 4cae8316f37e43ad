"""Where everything of the boot test is: addresses, namespaces, files."""

from pathlib import Path

HUB, PEER_NS, BARE_NS, VM_NS = "hub", "peer", "bare", "vm"
"""The bridge; a VM with IPsec; one without, in the same subnet; and the guest's own namespace."""

VM, PEER, BARE = "10.9.0.1", "10.9.0.2", "10.9.0.3"
PORT = 9000

BOOT, BOSH, REBOOTED = "boot", "bosh", "rebooted"
"""The lives that are lived: without BOSH, with it, and with it once more after its power went."""

LAB = Path("/run/lab")
"""The flows' tallies and the peer's files, in the guest."""

RESULTS = Path("/results")
LINE = Path("/dev/ttyS1")

ROOT_DISK, DATA_DISK = RESULTS / "root.tar", RESULTS / "data.tar"
"""What is on the VM's disks: IPsec's part of the root disk, and /var/vcap."""

SAVED_GUARD = Path("/var/lib/ipsec-agent/guard.nft")
CONFIG = Path("/etc/ipsec-agent/ipsec.yml")
VCAP = Path("/var/vcap")
RUN_DIR = Path("/run/ipsec-agent")
CONTROL = str(RUN_DIR / "control.sock")
