"""Whether a config may be enforced on this VM, checked before anything is touched."""

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired_guard import lockouts
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.errors import StartError


def refuse_lockout(config: Config, network: NetworkFacts, essential: EssentialAddresses) -> None:
    """Refuse a config that would cut this VM off from what it cannot do without.

    Raises:
        StartError: it would; the message names each address and the line to add.
    """
    own = tuple(one.address for one in network.addresses)
    found = [
        finding for finding in lockouts(config, own, network.gateways, essential) if finding.refused
    ]
    if found:
        raise StartError(
            "the config would cut this VM off: " + "; ".join(finding.message for finding in found),
            hint="; ".join(finding.hint for finding in found) + "; or use --force",
        )
