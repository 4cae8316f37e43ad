"""SAs that were made with another certificate, or under another set of CAs, than is in force."""

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.problems.problem import Problem, Severity, listed
from ipsec_agent.core.rotation import BOUND, Behind, Standing, behind, peers_with_sas
from ipsec_agent.core.status_rotation import told
from ipsec_agent.core.words import several

MINUTE = 60.0


def rotation_problems(drift: Drift) -> tuple[Problem, ...]:
    """An info while the agent moves the peers, a warning where that takes long."""
    charon = drift.observed.charon
    late = tuple(one for one in behind(drift) if one.made_with is not None)
    if charon is None or not late:
        return ()
    slow = drift.observed.time - charon.sets[-1].since >= BOUND
    removed = tuple(one for one in late if one.standing is Standing.REMOVED)
    return (
        Problem(
            "certificate-old",
            Severity.WARNING if slow else Severity.INFO,
            f"{told(late, peers_with_sas(drift))}: {_peers(late)}",
            "the agent moves them one after the other. Where that does not end: what is wrong with"
            " each is in `ipsec-agent status`; `ipsec-agent renew` tries again at once",
        ),
        *(() if not removed else (_removed(removed),)),
    )


def _removed(removed: tuple[Behind, ...]) -> Problem:
    left = max(one.ends_in or 0.0 for one in removed)
    return Problem(
        "ca-removed",
        Severity.WARNING,
        f"SAs with {several(len(removed), 'peer')} were made under a CA that the config no longer"
        f" has; the agent ends them in {_long(left)}: {_peers(removed)}",
        "give these VMs a certificate that a CA of ca_certificates signed, or put the CA back until"
        " they have one",
    )


def _peers(late: tuple[Behind, ...]) -> str:
    return listed(late, say=lambda one: str(one.pair[1]))


def _long(seconds: float) -> str:
    minutes = seconds / MINUTE
    return f"{minutes:.0f} min" if minutes > 1 else f"{seconds:.0f} s"
