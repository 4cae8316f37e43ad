"""Which links are given another MTU."""

from msgspec.structs import replace

from ipsec_agent.core.config import AgentConfig, MtuMode
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_mtu import mtus_to_fix
from ipsec_agent.core.observed import Link, NetworkFacts
from ipsec_agent.core.placement import place
from ipsec_agent.core.promise import Promise
from tests.configs import config
from tests.fakes import network

FIX = config(agent=AgentConfig(mtu=MtuMode.FIX))
VETH = Link(7, "c0", 1500, up=True, kind="veth")


def fixed(settings: object, facts: NetworkFacts) -> tuple[tuple[int, int], ...]:
    """What is to be set on a VM with these links."""
    placement = place(settings.agent, Promise.of(settings), facts)  # type: ignore[attr-defined, arg-type]
    return mtus_to_fix(settings, placement, desired(settings, placement), facts)  # type: ignore[arg-type]


def test_a_container_that_does_not_fit() -> None:
    """Its link is lowered to what ESP leaves of the uplink's 1500 bytes, if the config says so."""
    facts = network("10.0.0.5")
    facts = replace(facts, links=(*facts.links, VETH))

    assert fixed(FIX, facts) == ((7, 1466),)
    assert fixed(config(), facts) == ()
    assert fixed(FIX, replace(facts, links=(*facts.links[:2], replace(VETH, mtu=1400)))) == ()


def test_a_vm_that_encrypts_nothing() -> None:
    """On a VM that speaks clear every packet fits."""
    clear = config(no_ipsec=("10.0.0.5/32",), agent=AgentConfig(mtu=MtuMode.FIX))
    facts = network("10.0.0.5")

    assert fixed(clear, replace(facts, links=(*facts.links, VETH))) == ()
