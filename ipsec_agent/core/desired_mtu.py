"""From the config and the VM's own network to the MTUs that should be."""

from ipsec_agent.core.config import Config, MtuMode
from ipsec_agent.core.model import Desired
from ipsec_agent.core.mtu import carriage, judge_links, wanted
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.placement import Placement


def mtus_to_fix(
    config: Config, placement: Placement, desired: Desired, network: NetworkFacts
) -> tuple[tuple[int, int], ...]:
    """Index and MTU of each link that `agent.mtu: fix` lowers; none where it only warns.

    A veth whose other end cannot be lowered with it is left alone, and stays a problem.
    """
    how = carriage(config, desired)
    if how is None or config.agent.mtu is not MtuMode.FIX:
        return ()
    found = judge_links(placement.uplinks, network, how)
    return wanted(found, may_enter=network.may_enter)
