"""A deployment at once, on paper: `python -m bench.simulation`.

Each line is one run of bench/negotiations.py with the same seed: how long until every VM has an SA
with every other one, and what went wrong meanwhile. The times are those of the model, whose figures
of CPU are measured on this machine by `openssl speed`, or given with --ms.
"""

import argparse
import json
import re
import statistics
import subprocess
import sys
import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial
from ipaddress import IPv4Address

from msgspec import Struct

from bench.fleet import vm
from bench.negotiations import Costs, Fleet, Machine, Settings
from ipsec_agent.core import pacing
from ipsec_agent.core.model import Address
from ipsec_agent.core.strongswan_conf import SETTINGS

AS_SET = Settings(
    timeout=float(SETTINGS["retransmit_timeout"]),
    base=float(SETTINGS["retransmit_base"]),
    tries=int(SETTINGS["retransmit_tries"]),
    jitter=0,
    jobs=0,
    acquire=float(SETTINGS["plugins.kernel-netlink.xfrm_acq_expires"]),
)
"""What the agent gives to charon."""

PATIENT = Settings(timeout=1.0, base=1.8, tries=4, jitter=20, jobs=256, acquire=6.0)
"""What would suit a fleet better. charon has one patience for attempts and for dead peers
(task_manager_v2.c), so that a dead one would be noticed after 27 s instead of 11."""

RUNS = (
    ("unpaced", AS_SET, False),
    ("as set", AS_SET, True),
    ("more patient", PATIENT, True),
)
"""What is run beside each other: its name, charon's settings, and whether agents pace."""

MODELLED = 64
"""VMs that are modelled of a larger deployment: each pair stands for as many as there are more."""

MOST, EVENTS = 240.0, 200_000
"""Seconds of the model, and events, after which a run ends whose mesh is not full: those that have
collapsed do nothing but send again."""

PASS = 0.00025
"""Seconds between two passes of an agent, for each peer."""

ZONES, BOOT = 3, 10.0
"""One of so many zones reboots; its VMs come back within so many seconds."""

LATE = 30.0
"""Seconds by which a VM is an outlier, beside the median."""


class Case(Struct, frozen=True):
    """What happens to a deployment.

    Attributes:
        vms: how many it has.
        begin: has a fleet begin; the last argument is whether agents pace it.
    """

    name: str
    vms: int
    machine: Machine
    begin: Callable[[Fleet, bool], None]


def main(words: list[str]) -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser(prog="scripts/bench simulation")
    parser.add_argument("--ms", type=float, nargs=2, metavar=("SIGN", "VERIFY"))
    given = parser.parse_args(words).ms
    sign, verify = (
        (one / 1000 for one in given)
        if given
        else measured(("openssl", "speed", "-mr", "-seconds", "1", "rsa3072"))
    )
    costs = Costs(sign, 2 * verify)
    for line in (*memory(), *load(costs), *runs(costs)):
        sys.stdout.write(json.dumps(line) + "\n")
        sys.stdout.flush()


def measured(command: tuple[str, ...]) -> tuple[float, float]:
    """Seconds of a signature and of its verification, by openssl-speed(1)."""
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=30)
    found = re.search(r"\+F2:\d+:\d+:([0-9.e-]+):([0-9.e-]+)", done.stdout)
    if found is None:
        raise RuntimeError(f"{' '.join(command)} gives no times: {done.stdout}")
    # OpenSSL 3.0 prints seconds, later ones how many in a second.
    sign, verify = (float(one) if float(one) < 1 else 1 / float(one) for one in found.groups())
    return sign, verify


def memory() -> Iterator[dict[str, object]]:
    """Of the agent: what a pass keeps of so many peers."""
    for peers in (1000, 10_000):
        tracemalloc.start()
        kept = vm(peers, 4)
        size, _ = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        states = len(kept.observed.states)
        yield {
            "figure": f"agent's records, {peers} peers",
            "MiB": round(size / 2**20, 1),
            "SAs in the kernel": states,
        }


def load(costs: Costs) -> Iterator[dict[str, object]]:
    """A VM's CPU for new SAs with all peers, once with each."""
    for vms in (1000, 10_000):
        yield {
            "figure": f"CPU for an SA with each of {vms} VMs, s",
            "each end": round(costs.negotiation() * (vms - 1), 1),
        }


def packets(fleet: Fleet, _paced: bool) -> None:
    """Every VM sends to every other within a second: the kernel asks, and no agent is asked."""
    vms = range(len(fleet.nodes))
    pairs = [(one, other) for one in vms for other in vms if one != other]
    fleet.lack(pairs)
    for one, other in pairs:
        fleet.after(fleet.draw(1.0), partial(fleet.begin, one, other))


def reboot(fleet: Fleet, paced: bool) -> None:
    """A third of the VMs comes back, and each pokes all that it had an SA with."""
    vms = range(len(fleet.nodes))
    zone = range(len(vms) // ZONES)
    fleet.lack((one, other) for one in zone for other in vms if one != other)
    for one in zone:
        fleet.nodes[one].up = fleet.draw(BOOT)
        agent = Agent(fleet, one, fleet.nodes[one].up, [o for o in vms if o != one])
        fleet.after(fleet.nodes[one].up, partial(agent.look, paced=paced, grace=False))


def renewals(fleet: Fleet, paced: bool) -> None:
    """All charons restart within a second; meanwhile the traffic runs on the SAs of the old."""
    vms = range(len(fleet.nodes))
    fleet.lack((one, other) for one in vms for other in vms if one != other)
    for one in vms:
        fleet.nodes[one].up = fleet.draw(1.0)
        agent = Agent(fleet, one, fleet.nodes[one].up, [o for o in vms if o != one])
        fleet.after(fleet.nodes[one].up, partial(agent.look, paced=paced, grace=True))


class Agent:
    """A VM's agent, which decides as core/pacing.py says."""

    def __init__(self, fleet: Fleet, number: int, started: float, peers: list[int]) -> None:
        self._fleet, self._vm, self._started = fleet, number, started
        self._peers, self._begun = set(peers), dict[int, float]()
        self._pairs = {peer: (address(number), address(peer)) for peer in peers}
        self._known = {pair: peer for peer, pair in self._pairs.items()}
        self._pass = PASS * fleet.weight * len(fleet.nodes)
        self._credit = 0.0

    def look(self, *, paced: bool, grace: bool) -> None:
        """One pass: begin with the next ones, or, as before, with all."""
        fleet, node = self._fleet, self._fleet.nodes[self._vm]
        self._peers -= node.peers
        waiting = self._peers - self._begun.keys()
        for peer in self._next(waiting - node.trying, grace=grace) if paced else sorted(waiting):
            self._begun[peer] = fleet.now
            fleet.begin(self._vm, peer)
        if self._peers - self._begun.keys():
            fleet.after(self._pass, partial(self.look, paced=paced, grace=grace))

    def _next(self, waiting: set[int], *, grace: bool) -> list[int]:
        fleet, node = self._fleet, self._fleet.nodes[self._vm]
        turn = fleet.now - pacing.TURN
        busy = sum(at > turn and peer not in node.peers for peer, at in self._begun.items())
        pairs = [self._pairs[peer] for peer in sorted(waiting)]
        elapsed = fleet.now - self._started if grace else -1.0
        chosen = pacing.due(pairs, busy=0, elapsed=elapsed)
        # One of the model is several of the deployment, which begin in as many passes as they need.
        room = float(pacing.room(round(len(waiting) * fleet.weight), 0))
        if fleet.weight <= room:
            room = max(0.0, room - busy * fleet.weight)
        if chosen:
            self._credit = min(self._credit + room, max(room, fleet.weight))
        chosen = chosen[: int(self._credit / fleet.weight)]
        self._credit -= len(chosen) * fleet.weight
        return [self._known[pair] for pair in chosen]


def address(number: int) -> Address:
    """Of the VM with that number."""
    return IPv4Address("10.0.0.10") + number


def cases() -> Iterator[Case]:
    """Those that are run."""
    for vms in (1000, 10_000):
        yield Case(f"{vms} VMs send to each other at once", vms, Machine(), packets)
        yield Case(f"a zone of {vms} VMs reboots", vms, Machine(), reboot)
        yield Case(f"all charons of {vms} VMs restart", vms, Machine(), renewals)
    for vms in (16, 24):
        # As in the lab's guest, where all VMs share two CPUs that are emulated.
        slow = Machine(1, 20 * vms / 2)
        yield Case(f"{vms} VMs on two slow CPUs send to each other at once", vms, slow, packets)


def runs(costs: Costs) -> Iterator[dict[str, object]]:
    """Each case in each way."""
    for case in cases():
        for name, settings, paced in RUNS:
            found = run(case, costs, settings, paced=paced)
            yield {"figure": f"{case.name}, {name}", **found}


def run(case: Case, costs: Costs, settings: Settings, *, paced: bool) -> dict[str, object]:
    """One run: seconds until all is full, and what happened meanwhile, over all VMs."""
    modelled = min(case.vms, MODELLED)
    weight = (case.vms - 1) / (modelled - 1)
    fleet = Fleet(modelled, weight, case.machine, costs, settings)
    case.begin(fleet, paced)
    fleet.run(MOST, EVENTS)
    full = [node.full for node in fleet.nodes if node.full >= 0]
    median = statistics.median(full) if 2 * len(full) > modelled else None
    tally = fleet.tally
    return {
        "mesh full, s": None if fleet.missing else round(fleet.now, 1),
        **({"ended without, s": round(fleet.now, 1)} if fleet.missing else {}),
        "median VM, s": None if median is None else round(median, 1),
        "outliers": round(
            sum(median is None or not 0 <= node.full <= median + LATE for node in fleet.nodes)
            * (case.vms / modelled)
        ),
        **{
            name: round(value * weight * case.vms / modelled)
            for name, value in (
                ("begun", tally.begun),
                ("crossed", tally.crossed),
                ("retransmissions", tally.retransmissions),
                ("refused", tally.refused),
                ("gave up", tally.gave_up),
                ("SPIs expired", tally.expired),
            )
        },
        "CPU of a VM, s": round(statistics.mean(node.worked for node in fleet.nodes), 1),
    }


if __name__ == "__main__":
    main(sys.argv[1:])
