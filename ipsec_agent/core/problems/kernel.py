"""The kernel's part of health: its policies, the VM's address and links, what cannot be read."""

from collections.abc import Sequence

from ipsec_agent.core.drift import Drift, takes_trapped
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Observed, Policy
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity, listed

NAMES = 5
"""Connections that a message names."""

TOLD_ELSEWHERE = frozenset({"guard", "policies"})
"""What is a problem of its own where it cannot be read."""


def policy_problems(drift: Drift) -> tuple[Problem, ...]:
    """Whether the kernel has our policies, and none that undermine them."""
    bypasses: list[Policy] = []
    others: list[Policy] = []
    for policy in drift.foreign:
        (bypasses if _bypasses(policy, drift.desired) else others).append(policy)
    return (
        *_missing(drift),
        *_strange(
            bypasses,
            "policies-bypassed",
            Severity.ERROR,
            "let packets past our traps in clear, as far as the guard does not drop them",
        ),
        *_strange(others, "policies-foreign", Severity.WARNING, "are not ours"),
    )


def _missing(drift: Drift) -> tuple[Problem, ...]:
    desired, lacking = drift.desired, drift.missing
    error = dict(drift.observed.unreadable).get("policies")
    if error is not None:
        return (
            Problem(
                "policies-missing",
                Severity.CRITICAL,
                f"whether the policies are in the kernel cannot be read: {error.message}",
                error.hint,
            ),
        )
    if not lacking:
        return ()
    names = tuple(sorted({policy.connection for policy in lacking}))
    return (
        Problem(
            "policies-missing",
            Severity.CRITICAL,
            f"{len(lacking)} of {len(desired.policies)} policies are not in the kernel"
            f" ({listed(names, NAMES)})",
            "the agent installs them again by itself; if this stays, another program removes"
            " them: watch `ip xfrm monitor policy`",
        ),
    )


def _strange(
    policies: Sequence[Policy], code: str, severity: Severity, what: str
) -> tuple[Problem, ...]:
    if not policies:
        return ()
    first = policies[0].selector
    return (
        Problem(
            code,
            severity,
            f"{len(policies)} foreign policies in the kernel {what}, such as {first.source} to"
            f" {first.destination} ({first.direction.name.lower()})",
            "find out who installed them (another IPsec program, an earlier charon), and"
            " remove them with `ip xfrm policy delete`",
        ),
    )


def _bypasses(policy: Policy, desired: Desired) -> bool:
    """Whether a foreign policy lets pass in clear what one of our traps selects."""
    clear = not policy.esp and not policy.blocks and policy.tunnel is None
    return clear and takes_trapped(policy, desired)


def network_problems(placement: Placement | None) -> tuple[Problem, ...]:
    """Whether this VM is reachable at all."""
    if placement is None:
        return ()
    found = [
        Problem(
            "link-down",
            Severity.ERROR,
            f"the uplink {link.name} is down",
            f"bring it up (`ip link set {link.name} up`); if it is none of the"
            f" VM's own, write agent.inside: [{link.name}]",
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
                f"this VM's address {placement.address} is on none of its links",
                "correct agent.address, or bring the link up",
            )
        )
    return tuple(found)


def unreadable(observed: Observed) -> tuple[Problem, ...]:
    """What this pass could not read, and so did not judge."""
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
