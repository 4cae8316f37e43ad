"""The kernel's part of health: its policies, the VM's address and links, what cannot be read."""

from collections.abc import Sequence
from shlex import quote

from ipsec_agent.core.drift import Drift, takes_trapped
from ipsec_agent.core.model import Desired, Narrowing
from ipsec_agent.core.observed import NetworkFacts, Observed, Policy
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.words import several

NAMES = 5
"""Connections that a message names."""

TOLD_ELSEWHERE = frozenset({"guard"})
"""What is a problem of its own where it cannot be read."""


def policy_problems(drift: Drift) -> tuple[Problem, ...]:
    """Whether the kernel has our policies, and no foreign ones that undermine them."""
    network = drift.observed.network
    bypasses: list[Policy] = []
    others: list[Policy] = []
    for policy in drift.foreign:
        (bypasses if _bypasses(policy, drift.desired) else others).append(policy)
    return (
        *_missing(drift),
        *_strange(
            bypasses,
            network,
            "policies-bypassed",
            Severity.ERROR,
            f" that {'lets' if len(bypasses) == 1 else 'let'} packets bypass IPsec in clear unless"
            " the guard drops them",
        ),
        *_strange(others, network, "policies-foreign", Severity.WARNING, ""),
    )


def _missing(drift: Drift) -> tuple[Problem, ...]:
    desired, lacking = drift.desired, drift.missing
    if not lacking or "policies" in dict(drift.observed.unreadable):
        return ()
    names = tuple(sorted({policy.connection for policy in lacking}))
    return (
        Problem(
            "policies-missing",
            Severity.CRITICAL,
            f"the kernel lacks {len(lacking)} of"
            f" {several(len(desired.policies), 'policy', 'policies')} ({listed(names, NAMES)})",
            "the agent installs them again; if this persists, another program removes them:"
            " watch `ip xfrm monitor policy`",
        ),
    )


def _strange(
    policies: Sequence[Policy],
    network: NetworkFacts,
    code: str,
    severity: Severity,
    what: str,
) -> tuple[Problem, ...]:
    if not policies:
        return ()
    first, narrowed = policies[0].selector, policies[0].narrowed
    where = first.direction.name.lower() + (f", {narrowed}" if narrowed else "")
    return (
        Problem(
            code,
            severity,
            f"the kernel has {several(len(policies), 'foreign policy', 'foreign policies')}{what},"
            f" such as {first.source} to"
            f" {first.destination} ({where})",
            "find out who installed them (another IPsec program, an earlier charon), and"
            f" remove them with `{_deletion(policies[0], network)}`",
        ),
    )


def _deletion(policy: Policy, network: NetworkFacts) -> str:
    """The command that deletes a policy: ip needs all that makes up its identity."""
    selector, narrowed = policy.selector, policy.narrowed or Narrowing()
    names = {link.index: link.name for link in network.links}
    words = (
        f"ip xfrm policy delete src {selector.source} dst {selector.destination}",
        f"dev {names.get(narrowed.link, narrowed.link)}" if narrowed.link else "",
        f"proto {selector.protocol}" if selector.protocol else "",
        f"sport {selector.source_port}" if selector.source_port else "",
        f"dport {selector.destination_port}" if selector.destination_port else "",
        f"dir {selector.direction.name.lower()}",
        f"mark {narrowed.mark:#x} mask {narrowed.mask:#x}" if narrowed.mask else "",
        f"if_id {narrowed.interface}" if narrowed.interface else "",
    )
    return " ".join(filter(None, words))


def _bypasses(policy: Policy, desired: Desired) -> bool:
    """Whether a foreign policy lets pass in clear what one of our traps selects."""
    clear = not policy.esp and not policy.blocks and policy.tunnel is None
    return clear and takes_trapped(policy, desired)


def network_problems(placement: Placement | None, network: NetworkFacts) -> tuple[Problem, ...]:
    """Whether this VM is reachable at all."""
    if placement is None:
        return ()
    found = [
        Problem(
            "link-down",
            Severity.ERROR,
            f"the uplink {link.name} is down",
            f"bring it up (`ip link set {quote(link.name)} up`); if it leads"
            f" to containers only, write agent.inside: [{link.name}]",
            link.name,
        )
        for link in placement.uplinks
        if not link.up
    ]
    if not placement.present:
        found.append(
            Problem(
                "address-missing",
                Severity.ERROR,
                *_address_missing(placement, network),
            )
        )
    return tuple(found)


def _address_missing(placement: Placement, network: NetworkFacts) -> tuple[str, str]:
    """Message and hint: no link has this VM's address, or one that is not taken for its own."""
    address = placement.address
    correct = "correct agent.address: `ip -br address` shows this VM's"
    bearing = {one.link for one in network.addresses if one.address == address}
    for one in placement.inside:
        if one.link.index in bearing:
            name = one.link.name
            return (
                f"this VM's address {address} is on {name}, which is not guarded: {one.because}",
                f"write agent.uplinks: [{name}] if it leads to other VMs, or {correct}",
            )
    return (
        f"no link of this VM has the address {address}",
        f"bring the link up, add the address to it, or {correct}",
    )


def unreadable(observed: Observed) -> tuple[Problem, ...]:
    """What this pass could not read, and so did not check."""
    return tuple(
        Problem(
            "unreadable",
            # A kernel may keep no counters; nothing but their own part of health needs them.
            Severity.INFO if name == "counters" else Severity.ERROR,
            error.message,
            error.hint,
            name,
        )
        for name, error in observed.unreadable
        if name not in TOLD_ELSEWHERE
    )
