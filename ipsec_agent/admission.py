"""Whether a config may be enforced on this VM, checked before anything is touched."""

from ipsec_agent.core.config import Config
from ipsec_agent.core.desired import refuse_outside
from ipsec_agent.core.desired_guard import lockouts
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.observed import NetworkFacts
from ipsec_agent.core.placement import place
from ipsec_agent.core.promise import Promise
from ipsec_agent.errors import ConfigError, StartError


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


def refuse_unlisted(config: Config, network: NetworkFacts) -> None:
    """Refuse a config that lists none of this VM's addresses, unless it says what they do then.

    While this VM has no address that can be its own, nothing is known, and nothing refused.

    Raises:
        ConfigError: they are in neither list.
    """
    promise = Promise.of(config)
    try:
        placement = place(config.agent, promise, network)
    except ConfigError:
        return
    refuse_outside(config, promise, placement.address)
