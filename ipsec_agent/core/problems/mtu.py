"""The links' part of health: do the packets of this VM and its containers fit into ESP."""

from ipsec_agent.core.config import Config
from ipsec_agent.core.model import Desired
from ipsec_agent.core.mtu import Misfit, carriage, judge_links
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.placement import Placement
from ipsec_agent.core.problems.problem import Problem, Severity


def mtu_problems(
    config: Config, placement: Placement | None, desired: Desired, observed: Observed
) -> tuple[Problem, ...]:
    """A problem for each link whose packets are too large, with the command that corrects it."""
    how = carriage(config, desired)
    if how is None or placement is None:
        return ()
    return tuple(
        Problem(
            "mtu-too-large",
            # An idle one, as Docker's bridge without containers, loses nothing yet.
            Severity.INFO if misfit.idle else Severity.WARNING,
            f"{misfit.link.name} has MTU {misfit.link.mtu}, but only packets of up to"
            f" {misfit.fits} bytes fit into ESP on {misfit.uplink.name} (MTU {misfit.uplink.mtu})",
            f"run `{misfit.remedy}`{_first(misfit)}, and set it where the link is created, such as"
            " in the container network's settings (the guide: 100 bytes less than the VM's);"
            " or write agent.mtu: fix",
            misfit.link.name,
        )
        for misfit in judge_links(placement.uplinks, observed.network, how)
    )


def _first(misfit: Misfit) -> str:
    """What must be done before: the VM's end of a veth alone would lose even more."""
    return " after its other end, inside the container" if misfit.link.elsewhere else ""
