"""What no guard can check: containers with their own way out, tunnels to unencrypted far ends."""

from ipsec_agent.core.inside import LISTENING, OVERLAYS, OwnWay, own_ways
from ipsec_agent.core.model import Address
from ipsec_agent.core.observed import Link, NetworkFacts
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.promise import Promise


def link_problems(
    promise: Promise, placement: Placement | None, network: NetworkFacts, *, guarded: bool = True
) -> tuple[Problem, ...]:
    """The links by which packets leave in clear although the guard is up, or do not arrive.

    Args:
        guarded: the config wants the guard.
    """
    if placement is None:
        return ()
    return (*_own_ways(placement, network), *_overlays(promise, placement, guarded=guarded))


def _own_ways(placement: Placement, network: NetworkFacts) -> tuple[Problem, ...]:
    """One problem for each container."""
    found: dict[int, list[OwnWay]] = {}
    for way in own_ways(network, placement.inside):
        found.setdefault(way.namespace.number, []).append(way)
    return tuple(
        Problem(
            "container-not-guarded",
            Severity.WARNING,
            f"{_container(ways[0])} has {listed(tuple(map(_shown, ways)))} of its own: what it"
            " sends there bypasses this VM's IP layer and its guard",
            "connect it by a veth, outside any bridge with a way out; or run IPsec in it, or keep"
            " its addresses out of ipsec_subnets",
            _container(ways[0]),
        )
        for ways in found.values()
    )


def _container(way: OwnWay) -> str:
    there = way.namespace
    return f"the container {there.name or f'in network namespace {there.number}'}"


def _shown(way: OwnWay) -> str:
    if not way.below:
        return f"the network card {way.link.name}"
    return f"the {way.link.kind} {way.link.name} on {way.below}"


def _fate(link: Link, *, guarded: bool) -> str:
    """What happens to a tunnel's packets for a far end that is not encrypted."""
    if guarded and link.kind in LISTENING:
        return "the guard drops what it sends there"
    return "what it sends there leaves in clear"


def _far_ends(clear: tuple[Address, ...], remotes: tuple[Address, ...]) -> str:
    if len(remotes) == 1:
        return "the far end"
    return f"{len(clear)} of {len(remotes)} far ends"


def _encrypt(promise: Promise, clear: tuple[Address, ...]) -> str:
    """What makes them encrypted: the list of what is clear wins over the other."""
    excepted = any(promise.no_ipsec_subnet(far) is not None for far in clear)
    unlisted = any(promise.ipsec_subnet(far) is None for far in clear)
    steps = (
        "add what is missing to ipsec_subnets" if unlisted else "",
        "take them out of no_ipsec_subnets" if excepted else "",
    )
    return f"{' and '.join(filter(None, steps))}, on every VM"


def _overlays(promise: Promise, placement: Placement, *, guarded: bool) -> tuple[Problem, ...]:
    found = []
    for one in placement.inside:
        tunnel = one.link.tunnel
        if one.link.kind not in OVERLAYS or tunnel is None:
            continue
        clear = tuple(far for far in tunnel.remotes if not promise.encrypted(far))
        if clear:
            found.append(
                Problem(
                    "overlay-unencrypted",
                    Severity.WARNING,
                    f"{_far_ends(clear, tunnel.remotes)} of the tunnel {one.link.name}"
                    f" {'is' if len(clear) == 1 else 'are'} outside the encrypted set"
                    f" ({listed(clear)}); {_fate(one.link, guarded=guarded)}",
                    _encrypt(promise, clear),
                    one.link.name,
                )
            )
    return tuple(found)
