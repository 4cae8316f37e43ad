"""The request that changes whether a trap requires ESP: charon has no setting for it."""

from ipsec_agent.core.observed import Policy
from ipsec_agent.host.xfrm_messages import NewPolicy, Template, pack_template
from ipsec_agent.host.xfrm_records import family_of, selector_fields


def policy_replacement(policy: Policy, *, optional: bool) -> NewPolicy:
    """A policy of ESP in transport mode, in the place of the one with its selector.

    Args:
        optional: packets pass in clear where there is no SA for them.
    """
    selector = policy.selector
    family = family_of(selector.source.network_address)
    template = Template(family=family, reqid=policy.reqid, optional=int(optional))
    message = NewPolicy()
    message.update(selector_fields(selector))
    message["dir"] = int(selector.direction)
    message["priority"], message["index"] = policy.priority, policy.index
    message["attrs"] = [("XFRMA_TMPL", pack_template(template))]
    return message
