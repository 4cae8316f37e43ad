"""The demo: three VMs from one manifest, ESP on the wire, and what each agent says of itself."""

import sys
import tempfile
from pathlib import Path

from tests.certificates import rsa_key
from tests.charon.nodes import network
from tests.lab import judge
from tests.lab.deployment import A, B, C, configure, hub_of, start
from tests.lab.frames import Kind
from tests.lab.traffic import first_answer, ping, transfer
from tests.lab.wire import Capture


def say(text: str) -> None:
    """A line for the person who watches."""
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def main() -> int:
    """Show it; 0 where the wire says what the README promises."""
    with (
        tempfile.TemporaryDirectory(prefix="demo-") as place,
        network(Path(place), 3, "demo") as nodes,
    ):
        say("1. One manifest for three VMs: encrypt 10.9.0.0/24, but for 10.9.0.3/32")
        configure(nodes, [f"{C}/32"], key=rsa_key())
        say("2. An agent starts on each VM; each starts its own charon (strongSwan)")
        start(nodes)
        say("3. VM 1 pings VM 2, sends it 5 MB over TCP, and pings VM 3; a capture counts the wire")
        with Capture(hub_of(nodes)) as capture:
            waited = first_answer(nodes[0], B)
            answers = ping(nodes[0].name, B, 20), ping(nodes[0].name, C, 20)
            bulk = transfer(nodes[0].name, nodes[1].name, B, 5_000_000)
            # A clear packet past IPsec and guard: a capture that misses it could say nothing.
            judge.end(capture, nodes[0].name, A, B)
        for node in nodes:
            say(f"\n--- ipsec-agent status on {node.name}\n{node.ask('status').stdout.rstrip()}")
    rows = [
        (one, other, capture.between(one, other, Kind.ESP), capture.between(one, other, Kind.CLEAR))
        for one, other in ((A, B), (A, C))
    ]
    say("\n=== summary: packets on the wire")
    for (one, other, esp, clear), meant in zip(rows, ("encrypted", "clear"), strict=True):
        say(f"  {one} <-> {other}: {esp:6} ESP, {clear:6} clear   (by the manifest: {meant})")
    say(f"  answers: {answers[0].arrived} of 20 from {B}, {answers[1].arrived} of 20 from {C}")
    say(f"  first answer through IPsec after {waited:.2f} s; TCP over ESP at {bulk.speed:.1f} MB/s")
    good = rows[0][2] > 0 and rows[0][3] == 0 and rows[1][2] == 0 and rows[1][3] > 0
    say("  result: " + ("as promised" if good else "NOT as promised"))
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main())
