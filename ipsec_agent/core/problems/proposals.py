"""Proposals that the running charon cannot negotiate."""

from collections.abc import Iterator

from ipsec_agent.core.config import DEFAULT_ESP, DEFAULT_IKE, Config
from ipsec_agent.core.manifest.proposals import additional, classical
from ipsec_agent.core.observed import Observed
from ipsec_agent.core.offers import Offers, lacking, offers_of
from ipsec_agent.core.problems.problem import Problem, Severity

IMPOSSIBLE = "proposals-impossible"


def proposal_problems(config: Config, observed: Observed) -> tuple[Problem, ...]:
    """One for each property with a proposal that is left out, or with none that works."""
    charon = observed.charon
    offers = offers_of(charon)
    if charon is None or offers is None:
        return ()
    lists = (
        ("ike_proposals", config.ike_proposals, DEFAULT_IKE),
        ("esp_proposals", config.esp_proposals, DEFAULT_ESP),
    )
    return tuple(
        problem
        for name, proposals, default in lists
        for problem in _problem(name, proposals, default, offers, f"charon {charon.version}")
    )


def _problem(
    name: str, proposals: tuple[str, ...], default: tuple[str, ...], offers: Offers, who: str
) -> Iterator[Problem]:
    out = {one: lacks for one in proposals if (lacks := lacking(one, offers))}
    if not out:
        return
    words = ", ".join(dict.fromkeys(word for lacks in out.values() for word in lacks))
    if len(out) < len(proposals):
        yield Problem(
            "proposal-unsupported",
            Severity.WARNING,
            f"{who} cannot do {words}: {', '.join(out)} of {name} is not used",
            "install a charon that can (docs/config.md), or remove it; the others are used",
            name,
        )
    else:
        # Without a `!` what no additional key exchange is in is added.
        beside = (classical(one) for one in proposals if additional(one))
        helps = any(not lacking(one, offers) for one in beside)
        yield Problem(
            IMPOSSIBLE,
            Severity.CRITICAL,
            f"{who} cannot do {words}, and {name} has nothing else: no peer can be reached",
            f"add a proposal that it can do to {name}"
            + _example((*map(classical, proposals), *default), offers)
            + (", or remove each `!` there" if helps else "")
            + ", on every VM",
            name,
        )


def _example(proposals: tuple[str, ...], offers: Offers) -> str:
    return next((f", such as {one}" for one in proposals if not lacking(one, offers)), "")
