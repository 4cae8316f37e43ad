"""What no guard can judge: containers with a way of their own, tunnels to who speaks clear."""

from ipsec_agent.core.inside import OVERLAYS, OwnWay, own_ways
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.promise import Promise


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
            "container-not-judged",
            Severity.WARNING,
            f"{_container(ways[0])} has {listed(tuple(map(_shown, ways)))} of its own: what it"
            " sends by that does not pass this VM's IP layer and cannot be judged from here",
            "connect it by a veth, as bridge networks do; or run IPsec in it, or see to it that"
            " its addresses are in none of the ipsec_subnets",
            _container(ways[0]),
        )
        for ways in found.values()
    )


def _container(way: OwnWay) -> str:
    there = way.namespace
    return f"the container {there.name or f'in the network namespace of number {there.number}'}"


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
                    f"the tunnel {one.link.name} leads to {len(clear)} of {len(tunnel.remotes)} far"
                    f" ends that are not encrypted ({listed(clear)}): what it carries there leaves"
                    " in clear",
                    "add them to ipsec_subnets of every VM, and take them out of no_ipsec_subnets",
                    one.link.name,
                )
            )
    return tuple(found)
