"""The guard's part of health: does it stand as wanted, and what do its counters tell."""

import enum

from msgspec.structs import replace

from ipsec_agent.core.config import Config, GuardMode
from ipsec_agent.core.coverage import traps
from ipsec_agent.core.derived import derived
from ipsec_agent.core.drift import Drift
from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.flow_rules import unfiltered, wanted_flow_rules
from ipsec_agent.core.guard_table import mark
from ipsec_agent.core.lockout import Finding, unknown_lockout, unknown_lockout_hint
from ipsec_agent.core.model import Action, Address, Desired, Direction, Network, Role
from ipsec_agent.core.observed import Charon, Observed
from ipsec_agent.core.observed_guard import ClearPeer, GuardTable
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.guard_drops import full
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.ranges import Subnets
from ipsec_agent.core.words import several

RECENT = 20
"""Seconds after its last packet for which a sender of clear counts as one that sends."""

RECENT_FLOW = 60
"""Likewise for what is let through and only counted."""


class GuardState(enum.StrEnum):
    """Whether the guard stands."""

    UP = "up"
    MISSING = "missing"
    ALTERED = "altered"
    LOWERED = "lowered"
    NONE = "none"


def guard_state(
    config: Config, desired: Desired, observed: Observed, *, lowered: bool
) -> GuardState:
    """Whether the guard is as wanted.

    Args:
        lowered: an operator has taken it down, and the agent leaves it so.
    """
    if config.agent.guard is GuardMode.NONE:
        return GuardState.NONE
    if lowered:
        return GuardState.LOWERED
    if observed.guard is None:
        return GuardState.MISSING
    return GuardState.ALTERED if _altered(observed.guard, desired) else GuardState.UP


def _altered(table: GuardTable, desired: Desired) -> bool:
    if desired.guard is None:  # It is not known yet what should stand.
        return not table.mark
    wish = desired.guard
    return (
        table.mark != wish.mark
        or not set(table.exempt) <= set(wish.exempt)
        # With other links exempt its ports may be those of before.
        or (table.exempt == wish.exempt and not set(wish.overlay_ports) <= set(table.overlay_ports))
    )


def drops_clear(desired: Desired, table: GuardTable | None) -> bool:
    """Whether the table in force is known to drop what is clear."""
    wish = desired.guard
    return table is not None and wish is not None and wish.enforces and table.mark == wish.mark


def guard_problems(
    config: Config,
    placement: Placement | None,
    drift: Drift,
    *,
    lowered: bool,
) -> tuple[Problem, ...]:
    """Everything that the guard, or that it is not there, tells."""
    desired, observed = drift.desired, drift.observed
    state = guard_state(config, desired, observed, lowered=lowered)
    standing = (_STANDING[state],) if state in _STANDING else ()
    for name, error in observed.unreadable:
        if name == "guard" and state is GuardState.MISSING:
            standing = (
                replace(
                    _STANDING[state],
                    message=f"cannot read the guard: {error.message}",
                    hint=error.hint,
                ),
            )
    table = observed.guard
    if table is None:
        return standing
    return (
        *standing,
        # Where IPsec is optional these pass, and problems/optional.py tells of them.
        *(_dropped(placement, drift, table) if drops_clear(desired, table) else ()),
        *_untranslated(desired, table),
        *_unguarded(config, placement, observed, table),
        *_offloaded(desired, observed, table),
        *_full(table),
    )


def _dropped(placement: Placement | None, drift: Drift, table: GuardTable) -> tuple[Problem, ...]:
    return (*_received(table), *_prevented(placement, drift, table), *_misplaced(table))


def lockout_problems(findings: tuple[Finding, ...], charon: Charon | None) -> tuple[Problem, ...]:
    """What the config cuts this VM off from, each with the line that prevents it.

    One with which an SA stands can be reached.
    """
    reached = {
        sa.remote
        for sa in (charon.sas if charon else ())
        if any(child.state == "INSTALLED" for child in sa.children)
    }
    return tuple(
        Problem(
            "lockout-risk", Severity.WARNING, finding.message, finding.hint, str(finding.address)
        )
        for finding in findings
        if finding.address not in reached
    )


def unknown_lockout_problems(
    essential: EssentialAddresses, desired: Desired
) -> tuple[Problem, ...]:
    """What the config may cut this VM off from without anybody knowing it."""
    if desired.role is not Role.ENCRYPT:
        return ()
    return tuple(
        Problem(
            "lockout-unresolved",
            Severity.INFO,
            unknown_lockout(name),
            unknown_lockout_hint(name),
            name,
        )
        for name in essential.unresolved
    )


_STANDING = {
    GuardState.MISSING: Problem(
        "guard-missing",
        Severity.CRITICAL,
        "the guard's nftables table is not loaded; only charon's policies block clear packets",
        "the agent loads it again; if this persists, another program removes it: watch"
        " `nft monitor`",
    ),
    GuardState.ALTERED: Problem(
        "guard-altered",
        Severity.CRITICAL,
        "the guard's nftables table is not as the config wants it, and may let clear packets pass",
        "the agent replaces it; if this persists, another program changes it: watch `nft monitor`",
    ),
    GuardState.LOWERED: Problem(
        "guard-lowered",
        Severity.CRITICAL,
        "the guard was taken down by hand; only charon's policies block clear packets",
        "run `ipsec-agent guard up`, or restart the agent",
    ),
    GuardState.NONE: Problem(
        "guard-none",
        Severity.WARNING,
        "this VM has no guard (agent.guard: none); packets may leave in clear while charon"
        " is down or its policies are replaced",
        "install nftables and remove agent.guard from the config",
    ),
}


def _received(table: GuardTable) -> tuple[Problem, ...]:
    peers = _recent(table.clear_in, RECENT)
    if not peers:
        return ()
    return (
        Problem(
            "clear-received",
            Severity.WARNING,
            f"{_counted(peers)} {'sends' if len(peers) == 1 else 'send'} clear packets to this"
            " VM; the guard dropped them",
            "see `ipsec-agent status` on that VM; if it cannot run IPsec, list it in"
            " no_ipsec_subnets of every VM; if it has no IPsec yet, `optional: true` here lets"
            " clear packets pass",
        ),
    )


def _prevented(placement: Placement | None, drift: Drift, table: GuardTable) -> tuple[Problem, ...]:
    """One problem for each cause, however many peers it concerns."""
    # A broadcast address is nobody's, and the guard drops what is sent there.
    broadcasts = placement.broadcasts if placement else ()
    causes: dict[tuple[str, str], list[ClearPeer]] = {}
    for peer in _recent(table.clear_out, RECENT):
        if peer.address not in broadcasts:
            causes.setdefault(_cause(peer.address, drift), []).append(peer)
    return tuple(
        Problem(
            "clear-prevented",
            Severity.WARNING,
            f"the guard dropped clear packets to {_counted(tuple(peers))}: {because}",
            hint,
            because,
        )
        for (because, hint), peers in causes.items()
    )


def _cause(peer: Address, drift: Drift) -> tuple[str, str]:
    """Why no policy has made ESP of what goes to a peer, and what to do."""
    charon = drift.observed.charon
    repair = "the agent repairs it"
    if drift.desired.credentials is not None and charon is None:
        return "charon is not running", repair
    if charon is not None and not charon.responsive:
        return "charon does not answer", repair
    untrapped, names = _untrapped(drift)
    subnet = untrapped.narrowest(peer)
    if subnet is not None:
        return f"the kernel lacks the policy of {names[subnet]}", repair
    if _bypassed(drift).narrowest(peer) is not None:
        return (
            "a foreign policy lets them through",
            "see problem policies-bypassed",
        )
    if not traps(drift.desired).leads_to(peer):
        return (
            "no connection covers that address",
            "give this VM an encrypted address of that IP version; see the status's notes",
        )
    return (
        "their source address is not this VM's, but a container's or another link's",
        (
            "masquerade containers as this VM; write agent.inside for a guarded link that leads"
            " to containers only; list an own address that must stay clear, such as a virtual"
            " one on lo, in no_ipsec_subnets"
        ),
    )


@derived
def _untrapped(drift: Drift) -> tuple[Subnets, dict[Network, str]]:
    """Where traps are missing, and the connection of each."""
    lacking = {
        policy.selector.destination: policy.connection
        for policy in drift.missing
        if policy.action is Action.ENCRYPT and policy.selector.direction is Direction.OUT
    }
    return Subnets(lacking), lacking


@derived
def _bypassed(drift: Drift) -> Subnets:
    """Where foreign policies let out in clear."""
    return Subnets(
        policy.selector.destination
        for policy in drift.foreign
        if policy.selector.direction is Direction.OUT and not policy.esp and not policy.blocks
    )


def _misplaced(table: GuardTable) -> tuple[Problem, ...]:
    sources = _recent(table.misplaced, RECENT)
    if not sources:
        return ()
    return (
        Problem(
            "source-not-on-link",
            Severity.WARNING,
            f"the guard dropped clear packets to encrypted addresses from {_counted(sources)},"
            " which their outgoing link does not have",
            "let the program send from an address of that link; list an address that must stay"
            " clear, such as a virtual one on lo, in no_ipsec_subnets of every VM",
        ),
    )


def _untranslated(desired: Desired, table: GuardTable) -> tuple[Problem, ...]:
    senders = tuple(
        sender
        for sender in _recent(table.untranslated, RECENT_FLOW)
        # An own address in no list speaks clear by its role, which the status notes.
        if sender.address not in desired.addresses
    )
    if not senders:
        return ()
    return (
        Problem(
            "nat-bypassed",
            Severity.WARNING,
            f"packets from {_counted(senders)} leave in clear for encrypted addresses: these"
            " senders are in no ipsec subnet and not behind NAT",
            "masquerade them as this VM; if they must stay clear, list their subnet in"
            " no_ipsec_subnets of every VM",
        ),
    )


def _unguarded(
    config: Config, placement: Placement | None, observed: Observed, table: GuardTable
) -> tuple[Problem, ...]:
    links = {link.name: link for link in observed.network.links}
    reasons = {one.link.name: one.because for one in placement.inside} if placement else {}
    return tuple(
        Problem(
            "link-not-guarded",
            # Made by software, mostly for containers; a network card leads out of the VM.
            Severity.INFO if seen.link in links and links[seen.link].kind else Severity.WARNING,
            f"{several(seen.packets, 'packet')} between encrypted addresses went in clear over"
            f" {seen.link}, which is not guarded:"
            f" {reasons.get(seen.link, 'it led to containers only before')}",
            f"if {seen.link} leaves this VM, write agent.uplinks:"
            f" [{', '.join((*config.agent.uplinks, seen.link))}]"
            + (" and remove it from agent.inside" if seen.link in config.agent.inside else ""),
            seen.link,
        )
        for seen in table.unguarded
        if seen.idle < RECENT_FLOW
    )


def _offloaded(desired: Desired, observed: Observed, table: GuardTable) -> tuple[Problem, ...]:
    text = wanted_flow_rules(desired.guard, table.flowtables, observed.network.links)
    odd = unfiltered(desired.guard, observed.network.links)
    held = bool(text) and table.flow_rules == mark(text) and not odd
    happens = (
        f"the guard drops the clear ones ({several(table.offloaded, 'packet')} so far), so these"
        " connections break"
        if held
        else "they may leave in clear"
    )
    return tuple(
        Problem(
            "flows-offloaded",
            Severity.WARNING if held else Severity.CRITICAL,
            f"flowtable {name} forwards connections of containers past IPsec and the guard;"
            f" {happens}",
            f"delete the rules with `flow add`, then run `nft delete flowtable {name}`; or remove"
            " its devices"
            + (f"; nft cannot filter {listed(odd)}: give it another name" if odd else ""),
            name,
        )
        for name in table.flowtables
    )


def _full(table: GuardTable) -> tuple[Problem, ...]:
    sets = {
        "clear_in": table.clear_in,
        "clear_out": table.clear_out,
        "wrong_source": table.misplaced,
        "nat_bypassed": table.untranslated,
    }
    names = tuple(name for name, peers in sets.items() if full(peers))
    if not names:
        return ()
    return (
        Problem(
            "guard-counters-full",
            Severity.INFO,
            f"the guard's lists are full ({listed(names)}): it drops further peers without naming"
            " them",
            "an address leaves an hour after its last packet; `ipsec-agent guard down` and"
            " `ipsec-agent guard up` empty them now",
        ),
    )


def _recent(peers: tuple[ClearPeer, ...], seconds: int) -> tuple[ClearPeer, ...]:
    """Those who sent within so many seconds, the busiest first."""
    found = [peer for peer in peers if peer.idle < seconds]
    return tuple(sorted(found, key=lambda peer: -peer.packets))


def _counted(peers: tuple[ClearPeer, ...]) -> str:
    return listed(peers, say=lambda peer: f"{peer.address} ({several(peer.packets, 'packet')})")
