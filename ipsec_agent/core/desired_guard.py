"""From the config and the VM's own network to the guard's table, and what it would cut off.

With `optional: true` the table counts what it would else drop, in the same transactions.
"""

from msgspec.structs import replace

from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.derived import derived
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.flow_rules import flow_rules
from ipsec_agent.core.guard import Guard, exempt_links, overlay_ports
from ipsec_agent.core.guard_table import mark, ruleset
from ipsec_agent.core.lockout import Finding, lockout
from ipsec_agent.core.model import Address, Desired, DesiredGuard, LinkId
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.promise import Promise


@derived
def guard_of(config: Config) -> Guard:
    """What the table of every VM with this config is made from."""
    return Guard(Promise.of(config), config.force_udp_encapsulation, enforce=not config.optional)


def desired_guard(config: Config, placement: Placement) -> DesiredGuard | None:
    """The table of a VM, and the links that it exempts there.

    Returns:
        None where the operator wants no guard.
    """
    if config.agent.guard is GuardMode.NONE:
        return None
    return _wish(config, exempt_links(placement), overlay_ports(placement))


def unplaced(config: Config, *, lowered: bool) -> Desired:
    """What is wanted while this VM's addresses are not known: the guard on every link."""
    optional = config.optional
    if config.agent.guard is GuardMode.NONE or lowered:
        return Desired(placed=False, guard_lowered=lowered, optional=optional)
    return Desired(placed=False, guard=_wish(config), optional=optional)


def _wish(
    config: Config, exempt: tuple[LinkId, ...] = (), ports: tuple[int, ...] = ()
) -> DesiredGuard:
    return replace(_written(config), exempt=exempt, overlay_ports=ports)


@derived
def _written(config: Config) -> DesiredGuard:
    guard = guard_of(config)
    text = ruleset(guard)
    return DesiredGuard(text, mark(text), flow_rules=flow_rules(guard), enforces=guard.enforce)


def judging_all(wish: Desired, config: Config, *, lowered: bool) -> Desired:
    """The same with a config's guard on every link.

    Args:
        wish: perhaps of an earlier config, which let more pass.
        config: in force, by which this VM's place is not known.
        lowered: the operator has taken the guard down.
    """
    now = unplaced(config, lowered=lowered)
    optional = wish.optional and config.optional
    return replace(wish, guard=now.guard, guard_lowered=lowered, optional=optional)


def lockouts(
    config: Config,
    own: tuple[Address, ...],
    gateways: tuple[Address, ...],
    essential: EssentialAddresses,
) -> tuple[Finding, ...]:
    """What this VM would lose by the config, refusals first.

    With `agent.guard: none` it would lose the same: charon's traps catch the same packets.

    Args:
        own: this VM's addresses.
        gateways: its default gateways.
        essential: what else it needs.
    """
    return lockout(guard_of(config), own, gateways, essential)
