"""From the config, the VM's place and its links to everything that should be on it."""

from msgspec.structs import replace

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import desired
from ipsec_agent.core.desired_guard import desired_guard
from ipsec_agent.core.desired_mtu import mtus_to_fix
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.placement import Placement


def wish(config: Config, placement: Placement, network: NetworkFacts, *, lowered: bool) -> Desired:
    """What a VM with this placement should have.

    Args:
        lowered: an operator has taken the guard down for now.

    Raises:
        ConfigError: the main address is in neither list and `agent.outside` does not allow it.
    """
    guard = None if lowered else desired_guard(config, placement)
    wanted = desired(config, placement, guarded=guard is not None)
    mtus = mtus_to_fix(config, placement, wanted, network)
    return replace(wanted, guard=guard, guard_lowered=lowered, mtus=mtus)
