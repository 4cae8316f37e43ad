"""What takes IPsec from packets before any policy of ours is asked."""

from collections.abc import Iterator

from ipsec_agent.core.coverage import families
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.switch import Switch, SwitchKind

ALL = "all"


def switch_problems(
    placement: Placement | None, desired: Desired, observed: Observed
) -> Iterator[Problem]:
    """Settings of the kernel that undo IPsec on a guarded link, or on all."""
    used = families(desired)
    if not used:
        return
    guarded = (
        desired.guard is not None
        and observed.guard is not None
        and observed.guard.mark == desired.guard.mark
    )
    links = {link.name for link in placement.guarded} if placement else set()
    for switch in observed.switches:
        if switch.family in used and (switch.link == ALL or switch.link in links):
            yield _switched_off(switch, guarded=guarded)
    if observed.default_blocks:
        names = tuple(direction.name.lower() for direction in observed.default_blocks)
        yield Problem(
            "policy-default-blocks",
            Severity.ERROR,
            f"the kernel blocks packets that match no policy ({listed(names)}), even those"
            " with addresses outside the ipsec subnets",
            "run `ip xfrm policy setdefault in accept fwd accept out accept`, and find out who set"
            " it",
        )


def _switched_off(switch: Switch, *, guarded: bool) -> Problem:
    everywhere = switch.link == ALL
    where = "every link" if everywhere else switch.link
    if switch.kind is SwitchKind.DISABLE_XFRM:
        what = f"IPsec is disabled on {where}: IPv{switch.family} packets do not become ESP there"
        then = "the guard drops them" if guarded else "they leave in clear"
        code = "ipsec-disabled"
    else:
        checks = "no link does the kernel" if everywhere else f"{where} the kernel does not"
        what = f"on {checks} check IPsec policies for incoming IPv{switch.family} packets"
        then = "only the guard drops clear ones" if guarded else "clear ones are accepted"
        code = "policy-check-disabled"
    return Problem(
        code,
        Severity.ERROR if guarded else Severity.CRITICAL,
        f"{what}, and {then}",
        f"run `sysctl -w {switch.path}=0`, and remove it from /etc/sysctl.d",
        switch.path,
    )
