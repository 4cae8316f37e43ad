"""How the kernel differs from what should be: policies that are missing, foreign, or orphans.

An orphan is what an earlier charon left behind (it was killed): the charon that runs now does not
know it, so nobody would ever rekey or remove it, and an orphan PASS would let packets out in clear.
"""

from functools import cached_property

from msgspec import Struct, field

from ipsec_agent.core.derived import derived, derived_beside
from ipsec_agent.core.model import (
    Action,
    Address,
    Desired,
    DesiredPolicy,
    Direction,
    Network,
    PolicySelector,
)
from ipsec_agent.core.observed import Charon, ChildSa, Observed, Policy, SecurityAssociation
from ipsec_agent.core.ranges import BITS, Range, Ranges, joined, meets, range_of

PASS_BASE, SA_BASE, TRAP_BASE = 199999, 399999, 400000
BONUS = 512
"""charon's priorities: a base by kind, less so much for each bit of both prefixes (measured with
5.9.8; kernel_netlink_ipsec.c: get_priority)."""

BONUS_PROTOCOL, BONUS_PORT = 256, 64

Pair = tuple[int, int, int, int, int]
"""Source and destination as numbers: the records of the standard library take four times as long
to be looked up."""

Key = tuple[Pair, Direction, int, int, int]
"""A selector, likewise."""


class _Parted(Struct):
    """The kernel's policies in one walk.

    Attributes:
        installed: those that are wanted, by selector.
        others: all others.
        narrowed: those that a mark, an interface or a link narrows, which ours never are.
        secured: between what they require ESP.
    """

    installed: dict[Key, Policy] = field(default_factory=dict)
    others: list[tuple[Pair, Policy]] = field(default_factory=list)
    narrowed: list[Policy] = field(default_factory=list)
    secured: dict[Direction, set[Pair]] = field(
        default_factory=lambda: {direction: set() for direction in Direction}
    )


class Drift(Struct, frozen=True, dict=True):
    """What should be beside what one pass has read: each difference is found once, in one walk."""

    desired: Desired
    observed: Observed

    @cached_property
    def missing(self) -> tuple[DesiredPolicy, ...]:
        """The desired policies that the kernel does not show, or shows otherwise.

        Where IPsec is optional, a trap of either level is there.
        """
        installed, optional = self._parted.installed, self.desired.optional
        return tuple(
            policy
            for key, wanted in _wanted(self.desired).items()
            for policy in wanted
            if not _enforces(installed.get(key), policy.action, optional=optional)
        )

    @cached_property
    def mislevelled(self) -> tuple[tuple[DesiredPolicy, Policy], ...]:
        """Traps that require ESP where it is to be optional, or the other way round.

        The policies of a CHILD_SA, which may have a trap's selector, come before traps, and always
        require it.
        """
        optional, wanted = self.desired.optional, _wanted(self.desired)
        return tuple(
            (trap, policy)
            for key, policy in self._parted.installed.items()
            if (policy.esp if optional else policy.optional) and _is_trap(policy)
            for trap in wanted[key][:1]
            if trap.action is Action.ENCRYPT
        )

    @cached_property
    def foreign(self) -> tuple[Policy, ...]:
        """Policies that neither the connections nor a CHILD_SA of charon's explain.

        One that a mark, an interface or a link narrows, as route-based VPNs have them, counts where
        it takes what one of our traps selects. One of a CHILD_SA that charon made while the pass
        was reading is not foreign: charon had answered before.
        """
        pairs, began = self._charons_pairs, int(self.observed.time)
        return tuple(
            policy
            for pair, policy in self._parted.others
            if pair not in pairs
            and not (policy.esp and policy.added >= began > 0 and _is_charons(policy))
        ) + tuple(one for one in self._parted.narrowed if takes_trapped(one, self.desired))

    @cached_property
    def orphans(self) -> tuple[Policy, ...]:
        """Foreign policies with charon's own priorities, older than the charon that runs."""
        charon = self._answering
        if charon is None:
            return ()
        started = int(charon.process.started)
        return tuple(
            policy
            for policy in self.foreign
            if _is_charons(policy)
            and not policy.narrowed
            and (
                policy.added < started
                # One that charon has taken over keeps its index.
                or (policy.added == started and policy.index in self.observed.inherited.policies)
            )
        )

    @cached_property
    def orphan_states(self) -> tuple[SecurityAssociation, ...]:
        """SAs older than the charon that runs, which it does not list."""
        charon = self._answering
        if charon is None:
            return ()
        known = {spi for child, _ in self._children for spi in (child.spi_in, child.spi_out)}
        inherited, started = self.observed.inherited.spis, int(charon.process.started)
        return tuple(
            state
            for state in self.observed.states
            if state.spi
            and state.spi not in known
            and (state.spi in inherited or state.added < started)
        )

    @cached_property
    def orphan_peers(self) -> tuple[tuple[Address, Address], ...]:
        """Own address and peer of each pair whose traffic runs on an earlier charon's SAs."""
        pairs = {(state.source, state.destination) for state in self.orphan_states}
        if not pairs:
            return ()
        return tuple(
            ends
            for policy in self.observed.policies
            if policy.esp
            and not policy.narrowed
            and policy.selector.direction is Direction.OUT
            and (ends := ends_of(policy.selector)) in pairs
            and pair_of(policy.selector.source, policy.selector.destination)
            not in self._charons_pairs
        )

    @cached_property
    def lost_children(self) -> tuple[ChildSa, ...]:
        """CHILD_SAs that charon believes in and whose SAs, or policies, the kernel lacks.

        Where this VM only receives, nothing else would end them: DPD asks the IKE_SA only, and is
        content. Where it sends, the kernel asks for an SA in the place of the one that it lacks,
        with its SPI, and charon takes the end of that for an expiry after `xfrm_acq_expires`.

        SAs and policies must have been read after charon's answer (observe.py). No age is asked
        for: charon's counts from the moment when the negotiation begins (child_sa.c: install_time).
        """
        if self._answering is None:
            return ()
        there = {state.spi for state in self.observed.states}
        return tuple(
            child
            for child, pairs in self._children
            if child.state == "INSTALLED"
            and not (child.spi_in in there and child.spi_out in there and self._has_policies(pairs))
        )

    def _has_policies(self, pairs: tuple[Pair, ...]) -> bool:
        """Whether the two policies between a child's hosts are there; others are not looked for."""
        if len(pairs) != 1:
            return True
        version, _, near, _, far = pairs[0]
        secured = self._parted.secured
        return near + far < 2 * BITS[version] or (
            pairs[0] in secured[Direction.OUT] and turned(pairs[0]) in secured[Direction.IN]
        )

    @cached_property
    def _answering(self) -> Charon | None:
        charon = self.observed.charon
        return charon if charon is not None and charon.responsive else None

    @cached_property
    def _children(self) -> tuple[tuple[ChildSa, tuple[Pair, ...]], ...]:
        """charon's CHILD_SAs, each with all pairs of its local and remote networks."""
        charon = self.observed.charon
        return tuple(
            (
                child,
                tuple(pair_of(local, remote) for local in child.local for remote in child.remote),
            )
            for sa in (charon.sas if charon else ())
            for child in sa.children
        )

    @cached_property
    def _charons_pairs(self) -> set[Pair]:
        """What charon's CHILD_SAs are between, both ways round."""
        there = {pair for _, pairs in self._children for pair in pairs}
        return there | {turned(pair) for pair in there}

    @cached_property
    def _parted(self) -> _Parted:
        return _parted_by(self.desired, self.observed.policies)


@derived_beside
def _parted_by(desired: Desired, policies: tuple[Policy, ...]) -> _Parted:
    """The policies beside those that are wanted; they seldom change from one pass to the next."""
    wanted = _wanted(desired)
    parted = _Parted()
    for policy in policies:
        if policy.narrowed:
            parted.narrowed.append(policy)
            continue
        selector = policy.selector
        pair = pair_of(selector.source, selector.destination)
        if policy.esp:
            parted.secured[selector.direction].add(pair)
        key = (pair, *_rest(selector))
        if key in wanted:
            parted.installed[key] = policy
        else:
            parted.others.append((pair, policy))
    return parted


@derived
def _wanted(desired: Desired) -> dict[Key, list[DesiredPolicy]]:
    """The desired policies by selector, which two connections may share."""
    found: dict[Key, list[DesiredPolicy]] = {}
    for policy in desired.policies:
        selector = policy.selector
        key = (pair_of(selector.source, selector.destination), *_rest(selector))
        found.setdefault(key, []).append(policy)
    return found


def pair_of(source: Network, destination: Network) -> Pair:
    """Two networks of one IP version as numbers."""
    return (
        source.version,
        int(source.network_address),
        source.prefixlen,
        int(destination.network_address),
        destination.prefixlen,
    )


def turned(pair: Pair) -> Pair:
    """The pair of the way back."""
    version, source, source_length, destination, destination_length = pair
    return version, destination, destination_length, source, source_length


def _rest(selector: PolicySelector) -> tuple[Direction, int, int, int]:
    return (
        selector.direction,
        selector.protocol,
        selector.source_port,
        selector.destination_port,
    )


def ends_of(selector: PolicySelector) -> tuple[Address, Address]:
    """The first addresses of both networks: the ends, where it is one between two hosts."""
    return selector.source.network_address, selector.destination.network_address


def takes_trapped(policy: Policy, desired: Desired) -> bool:
    """Whether a policy selects some of what one of our traps does."""
    selector = policy.selector
    source, destination = range_of(selector.source), range_of(selector.destination)
    near, far = (
        (source, destination) if selector.direction is Direction.OUT else (destination, source)
    )
    return any(
        own[0] <= near[1] and near[0] <= own[1] and meets(remotes, far)
        for own, remotes in _trapped(desired).get((selector.direction, selector.source.version), ())
    )


@derived
def _trapped(desired: Desired) -> dict[tuple[Direction, int], tuple[tuple[Range, Ranges], ...]]:
    """What traps select, by direction and IP version: each own network with all its remote ones.

    A VM has few own addresses, however many subnets its traps lead to.
    """
    found: dict[tuple[Direction, int], dict[Range, list[Range]]] = {}
    for wanted in desired.policies:
        if wanted.action is Action.ENCRYPT:
            selector = wanted.selector
            ends = range_of(selector.source), range_of(selector.destination)
            near, far = ends if selector.direction is Direction.OUT else ends[::-1]
            key = selector.direction, selector.source.version
            found.setdefault(key, {}).setdefault(near, []).append(far)
    return {
        key: tuple((near, joined(remotes)) for near, remotes in by_own.items())
        for key, by_own in found.items()
    }


def _enforces(policy: Policy | None, action: Action, *, optional: bool) -> bool:
    if policy is None or policy.blocks:
        return False
    if optional and policy.optional:
        return action is Action.ENCRYPT
    return policy.esp if action is Action.ENCRYPT else not policy.esp


def _is_trap(policy: Policy) -> bool:
    unblemished = not policy.blocks and not policy.narrowed and policy.tunnel is None
    return unblemished and _base(policy) == TRAP_BASE


def _is_charons(policy: Policy) -> bool:
    secured = policy.esp or policy.optional or policy.tunnel is not None
    return _base(policy) in ((SA_BASE, TRAP_BASE) if secured else (PASS_BASE,))


def _base(policy: Policy) -> int:
    """The base of charon's by which it has made a policy's priority."""
    selector = policy.selector
    bonus = BONUS * (selector.source.prefixlen + selector.destination.prefixlen)
    bonus += BONUS_PROTOCOL if selector.protocol else 0
    bonus += BONUS_PORT * sum(
        port != 0 for port in (selector.source_port, selector.destination_port)
    )
    return policy.priority + bonus
