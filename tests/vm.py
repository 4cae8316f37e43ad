"""A VM as records, healthy until a test changes it; for what judges without touching."""

from dataclasses import field
from ipaddress import ip_address, ip_network
from typing import Any

from msgspec import Struct
from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.health import Assessment, Memory, assess
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import (
    Charon,
    CharonProcess,
    ChildSa,
    IkeSa,
    Link,
    Namespace,
    NetworkFacts,
    Observed,
    OwnAddress,
)
from ipsec_agent.core.observed_guard import GuardTable
from ipsec_agent.core.placement import Placement, place
from ipsec_agent.core.problems.problem import Problem
from ipsec_agent.core.promise import Promise
from tests.configs import config
from tests.fakes import installed

OWN, PEER, OTHER = (ip_address(f"10.0.0.{last}") for last in (5, 9, 66))
NOW = 1_800_000_000.0
BEGAN = NOW - 1000
LINKS = (
    Link(1, "lo", 65536, up=True, loopback=True),
    Link(2, "eth0", 1500, up=True),
    Link(3, "docker0", 1400, up=True, kind="bridge"),
    Link(4, "eth1", 1500, up=True),
    Link(9, "veth1", 1400, up=True, kind="veth", master=3, lower=2, namespace=0),
)
CONTAINER = Namespace(0, (Link(2, "eth0", 1400, up=True, kind="veth", lower=9, namespace=1),))
NETWORK = NetworkFacts(
    LINKS, (OwnAddress(OWN, 24, 2),), (2,), (), namespaces=(CONTAINER,), number=1
)
CHARON = Charon(CharonProcess(4711, BEGAN, 1 << 20, ours=True), "5.9.8")


class Vm(Struct, frozen=True):
    """What a pass knows of a VM."""

    config: Config
    placement: Placement
    desired: Desired
    observed: Observed = field(repr=False)

    def but(self, **changes: Any) -> "Vm":
        """The VM with something else observed."""
        return replace(self, observed=replace(self.observed, **changes))

    def table(self, **changes: Any) -> "Vm":
        """The VM with another guard's table."""
        assert self.observed.guard is not None
        return self.but(guard=replace(self.observed.guard, **changes))

    def assess(self, memory: Memory | None = None, **more: Any) -> Assessment:
        """What health says of it."""
        return assess(
            self.config,
            self.placement,
            Drift(self.desired, self.observed),
            memory or Memory(),
            **more,
        )

    def problems(self, **more: Any) -> dict[str, Problem]:
        """The problems of a single pass, by code."""
        return {problem.code: problem for problem in self.assess(**more).problems}


def healthy_vm(settings: Config | None = None, network: NetworkFacts = NETWORK) -> Vm:
    """A VM on which everything is as its config wants it."""
    settings = settings or config()
    placement = place(settings.agent, Promise.of(settings), network)
    guard = desired_guard(settings, placement)
    wish = replace(desired(settings, placement), guard=guard)
    table = (
        None
        if guard is None
        else GuardTable(
            "form", mark=guard.mark, exempt=guard.exempt, overlay_ports=guard.overlay_ports
        )
    )
    return Vm(
        settings,
        placement,
        wish,
        Observed(
            charon=CHARON,
            policies=tuple(installed(policy) for policy in wish.policies),
            network=network,
            guard=table,
            time=NOW,
        ),
    )


def with_sa(vm: Vm, peer: str = str(PEER), *, age: int = 20, state: str = "INSTALLED") -> Vm:
    """The VM with a CHILD_SA with a peer."""
    assert vm.observed.charon is not None
    own, far = ip_network(OWN), ip_network(peer)
    child = ChildSa(1, "x", state, 8, 7, 1, (own,), (far,), 3000, 2000, 30, 20, age)
    ike = IkeSa(1, "x", "ESTABLISHED", OWN, ip_address(peer), True, age, (child,))
    return vm.but(charon=replace(vm.observed.charon, sas=(*vm.observed.charon.sas, ike)))
