"""How long what a pass decides takes: `python -m bench.core [WORD...]`, median milliseconds.

Each line is a figure; words choose those whose name holds one of them.
"""

import gc
import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator

from msgspec.structs import replace

from bench.fleet import NETWORK, Vm, config, vm
from ipsec_agent.core import status_view
from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard, lockouts
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.health import Assessment, Memory, assess
from ipsec_agent.core.liars import lies
from ipsec_agent.core.placement import place
from ipsec_agent.core.plan import plan
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.status import Snapshot, State, document, sentence
from ipsec_agent.verbs.status_peers import table
from ipsec_agent.verbs.status_text import text

LASTING = 1.0
"""Seconds for which a figure is measured at the least, unless it was measured often enough."""

LEAST, MOST = 3, 50
"""Times that a figure is measured."""

SUBNETS = (2, 400, 1000)
PEERS = (100, 1000, 2000)
Figure = tuple[str, Callable[[], object]]


def main(words: list[str]) -> None:
    """Print the figures that were asked for."""
    for name, measured in figures():
        if not words or any(word in name for word in words):
            sys.stdout.write(json.dumps({"figure": name, "ms": round(median(measured), 3)}) + "\n")
            sys.stdout.flush()


def median(measured: Callable[[], object]) -> float:
    """Milliseconds of CPU time, in which other load counts little; the first call is warming."""
    measured()
    gc.collect()
    took: list[float] = []
    while len(took) < LEAST or (sum(took) < LASTING and len(took) < MOST):
        began = time.process_time()
        measured()
        took.append(time.process_time() - began)
    return statistics.median(took) * 1000


def figures() -> Iterator[Figure]:
    """Each figure's name and what it measures; what that needs is made when it is asked for."""
    for subnets in SUBNETS:
        yield from _wishes(subnets)
    for peers in PEERS:
        yield from _decisions(peers, 4)
    yield from _decisions(1000, 400)
    for clear in (100, 1000):
        yield from _clear(clear)


def _clear(senders: int) -> Iterator[Figure]:
    found = vm(1000, 400, clear=senders)
    bare = replace(found.observed, policies=())
    what = f"1000 peers, 400 subnets, {senders} clear senders"
    yield f"assess, {what}", lambda: _assess(found, _drift(found))
    yield f"assess without policies, {what}", lambda: _assess(found, Drift(found.desired, bare))


def _wishes(subnets: int) -> Iterator[Figure]:
    made = config(subnets)
    placement = place(made.agent, Promise.of(made), NETWORK)

    def again() -> Config:
        """The config as it is read anew: nothing is known of it."""
        return replace(made)

    yield f"desired, {subnets} subnets", lambda: desired(again(), placement)
    yield f"guard, {subnets} subnets", lambda: desired_guard(again(), placement)
    yield f"place, {subnets} subnets", lambda: place(made.agent, Promise.of(again()), NETWORK)
    loaded = vm(0, subnets)
    yield (
        f"plan with another wish, {subnets} subnets",
        lambda: plan(Drift(replace(loaded.desired), loaded.observed)),
    )


def _decisions(peers: int, subnets: int) -> Iterator[Figure]:
    found = vm(peers, subnets)
    what = f"{peers} peers, {subnets} subnets"
    yield f"plan, {what}", lambda: plan(_drift(found))
    yield f"assess, {what}", lambda: _assess(found, _drift(found))
    snapshot = _snapshot(found, _drift(found))
    yield f"document, {what}", lambda: document(replace(snapshot, drift=_drift(found)))
    status = document(snapshot)
    yield f"status as text, {what}", lambda: text(status)
    yield f"status --peers, {what}", lambda: table(status_view.peers(status))
    yield f"pass, {what}", lambda: _pass(found)


def _pass(found: Vm) -> None:
    """All that a pass decides after which nothing is to do; the wish is that of the one before."""
    drift = _drift(found)
    steps = (*lies(drift), *plan(drift))
    if steps:
        raise RuntimeError(f"the bench's VM is not well: {steps}")
    sentence(_snapshot(found, drift))


def _drift(found: Vm) -> Drift:
    return Drift(found.desired, found.observed)


def _snapshot(found: Vm, drift: Drift) -> Snapshot:
    assessed = _assess(found, drift)
    return Snapshot(
        found.config,
        found.placement,
        drift,
        assessed.problems,
        State.RUNNING,
        1,
        "0",
        1,
        assessed.peers,
    )


def _assess(found: Vm, drift: Drift) -> Assessment:
    own = tuple(one.address for one in found.observed.network.addresses)
    return assess(
        found.config,
        found.placement,
        drift,
        Memory(),
        lockouts=lockouts(found.config, own, (), EssentialAddresses()),
    )


if __name__ == "__main__":
    main(sys.argv[1:])
