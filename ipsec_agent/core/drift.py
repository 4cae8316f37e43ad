"""How the kernel differs from what should be: policies that are missing, foreign, or orphans.

An orphan is what an earlier charon left behind (it was killed): the charon that runs now does not
know it, so nobody would ever rekey or remove it, and an orphan PASS would let packets out in clear.
"""

from collections.abc import Iterable

from ipsec_agent.core.model import Action, Address, Desired, DesiredPolicy, Direction
from ipsec_agent.core.observed import Charon, ChildSa, Observed, Policy, SecurityAssociation

PASS_BASE, SA_BASE, TRAP_BASE = 199999, 399999, 400000
BONUS = 512
"""charon's priorities: a base by kind, less so much for each bit of both prefixes (measured with
5.9.8; kernel_netlink_ipsec.c: get_priority)."""

PAIR = 2

BONUS_PROTOCOL, BONUS_PORT = 256, 64


def missing(desired: Desired, policies: Iterable[Policy]) -> tuple[DesiredPolicy, ...]:
    """The desired policies that the kernel does not show, or shows otherwise."""
    installed = {policy.selector: policy for policy in policies}
    return tuple(
        wanted
        for wanted in desired.policies
        if not _enforces(installed.get(wanted.selector), wanted.action)
    )


def foreign(desired: Desired, observed: Observed) -> tuple[Policy, ...]:
    """Policies that neither the connections nor a CHILD_SA of charon's explain.

    One of a CHILD_SA that charon made while the pass was reading is not foreign: charon had
    answered before.
    """
    wanted = {policy.selector for policy in desired.policies}
    pairs = {
        frozenset((local, remote))
        for child in _children(observed.charon)
        for local in child.local
        for remote in child.remote
    }
    return tuple(
        policy
        for policy in observed.policies
        if policy.selector not in wanted
        and frozenset((policy.selector.source, policy.selector.destination)) not in pairs
        and not (policy.esp and policy.added >= int(observed.time) > 0 and _is_charons(policy))
    )


def takes_trapped(policy: Policy, desired: Desired) -> bool:
    """Whether a policy selects some of what one of our traps does."""
    return any(
        wanted.action is Action.ENCRYPT
        and wanted.selector.direction is policy.selector.direction
        and wanted.selector.source.overlaps(policy.selector.source)
        and wanted.selector.destination.overlaps(policy.selector.destination)
        for wanted in desired.policies
    )


def _children(charon: Charon | None) -> tuple[ChildSa, ...]:
    return tuple(child for sa in charon.sas for child in sa.children) if charon else ()


def _enforces(policy: Policy | None, action: Action) -> bool:
    if policy is None or policy.blocks:
        return False
    return policy.esp if action is Action.ENCRYPT else not policy.esp


def orphans(desired: Desired, observed: Observed) -> tuple[Policy, ...]:
    """Foreign policies with charon's own priorities that are older than the charon that runs."""
    charon = observed.charon
    if charon is None or not charon.responsive:
        return ()
    return tuple(
        policy
        for policy in foreign(desired, observed)
        if _is_charons(policy)
        and (
            policy.added < int(charon.process.started)
            # One that charon has taken over keeps its index.
            or (
                policy.added == int(charon.process.started)
                and policy.index in observed.inherited.policies
            )
        )
    )


def orphan_states(observed: Observed) -> tuple[SecurityAssociation, ...]:
    """SAs older than the charon that runs, which it does not list."""
    charon = observed.charon
    if charon is None or not charon.responsive:
        return ()
    known = {spi for child in _children(charon) for spi in (child.spi_in, child.spi_out)}
    return tuple(
        state
        for state in observed.states
        if state.spi
        and state.spi not in known
        and (state.spi in observed.inherited.spis or state.added < int(charon.process.started))
    )


def lost_children(observed: Observed) -> tuple[ChildSa, ...]:
    """CHILD_SAs that charon believes in and whose SAs, or policies, the kernel lacks.

    Nothing else would end them: DPD asks the IKE_SA only, and is content; and within an IKE_SA
    charon refuses a second CHILD_SA with the same selectors (tasks/child_create.c), so that a trap
    alone asks in vain.

    SAs and policies must have been read after charon's answer (observe.py). No age is asked for:
    charon's counts from the moment when the negotiation begins (child_sa.c: install_time).
    """
    charon = observed.charon
    if charon is None or not charon.responsive:
        return ()
    there = {state.spi for state in observed.states}
    return tuple(
        child
        for child in _children(charon)
        if child.state == "INSTALLED"
        and (
            not {child.spi_in, child.spi_out} <= there
            or not _has_policies(child, observed.policies)
        )
    )


def _has_policies(child: ChildSa, policies: Iterable[Policy]) -> bool:
    """Whether the two policies between its hosts are there; others are not looked for."""
    hosts = (*child.local, *child.remote)
    if len(hosts) != PAIR or any(network.num_addresses > 1 for network in hosts):
        return True
    local, remote = hosts
    wanted = {(Direction.OUT, local, remote), (Direction.IN, remote, local)}
    return wanted <= {
        (policy.selector.direction, policy.selector.source, policy.selector.destination)
        for policy in policies
        if policy.esp
    }


def orphan_peers(observed: Observed) -> tuple[tuple[Address, Address], ...]:
    """Own address and peer of each pair whose traffic still runs on an earlier charon's SAs."""
    charon = observed.charon
    if charon is None or not charon.responsive:
        return ()
    renewed = {
        (local, remote)
        for child in _children(charon)
        for local in child.local
        for remote in child.remote
    }
    pairs = {(state.source, state.destination) for state in orphan_states(observed)}
    return tuple(
        (policy.selector.source.network_address, policy.selector.destination.network_address)
        for policy in observed.policies
        if policy.esp
        and policy.selector.direction is Direction.OUT
        and (policy.selector.source, policy.selector.destination) not in renewed
        and (policy.selector.source.network_address, policy.selector.destination.network_address)
        in pairs
    )


def _is_charons(policy: Policy) -> bool:
    selector = policy.selector
    bonus = BONUS * (selector.source.prefixlen + selector.destination.prefixlen)
    bonus += BONUS_PROTOCOL if selector.protocol else 0
    bonus += BONUS_PORT * sum(
        port != 0 for port in (selector.source_port, selector.destination_port)
    )
    secured = policy.esp or policy.tunnel is not None
    bases = (SA_BASE, TRAP_BASE) if secured else (PASS_BASE,)
    return policy.priority + bonus in bases
