"""What no guard can check: containers with their own way out, tunnels to unencrypted far ends."""

from ipsec_agent.core.inside import OVERLAYS, OwnWay, own_ways
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.words import several


def link_problems(
    promise: Promise, placement: Placement | None, network: NetworkFacts
) -> tuple[Problem, ...]:
    """The links by which packets leave in clear, although the guard is up."""
    if placement is None:
        return ()
    return (*_own_ways(placement, network), *_overlays(promise, placement))


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


def _overlays(promise: Promise, placement: Placement) -> tuple[Problem, ...]:
    found = []
    for one in placement.inside:
        tunnel = one.link.tunnel
        if one.link.kind not in OVERLAYS or tunnel is None:
            continue
        clear = tuple(str(far) for far in tunnel.remotes if not promise.encrypted(far))
        if clear:
            found.append(
                Problem(
                    "overlay-unencrypted",
                    Severity.WARNING,
                    f"the tunnel {one.link.name} sends in clear to {len(clear)} of"
                    f" {several(len(tunnel.remotes), 'far end')}, outside the encrypted set"
                    f" ({listed(clear)})",
                    "add them to ipsec_subnets of every VM, and remove them from no_ipsec_subnets",
                    one.link.name,
                )
            )
    return tuple(found)
