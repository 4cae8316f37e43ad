"""Which of a firewall's rules let packets pass to a peer, by what `verify` saw of it."""

import enum

from msgspec import Struct

from ipsec_agent.core.proof import Finding, Observation, Verdict
from ipsec_agent.core.verify import PORTS

UDP_500 = "UDP 500"


class Passage(enum.StrEnum):
    """What became of a kind of packets."""

    PASSES = "passes"
    HELD_BACK = "held back"
    NOT_TRIED = "not tried"


class Probed(Struct, frozen=True):
    """A rule, and whether packets of its kind pass both ways between this VM and the peer."""

    rule: str
    passage: Passage
    why: str


UNTRIED = frozenset({Verdict.CLEAR_BY_CONFIG, Verdict.NO_ROUTE, Verdict.NO_POLICY, Verdict.NO_PEER})
"""Verdicts that tell nothing of a firewall: nothing could have come back."""


def probed(seen: Observation, found: Finding, *, encapsulated: bool) -> tuple[Probed, ...]:
    """IKE's rule, and that of ESP.

    Args:
        found: the verdict on what was seen.
        encapsulated: ESP travels in UDP, by the config.
    """
    return _ike(seen, found, encapsulated), _esp(
        seen, found, "UDP 4500" if encapsulated else "protocol 50"
    )


UNUSED = "; UDP 4500 was not tried: force_udp_encapsulation is not set"
"""IKE goes there, too, once ESP is in UDP."""


def _ike(seen: Observation, found: Finding, encapsulated: bool) -> Probed:
    peer, before = seen.pair.peer, seen.before
    unused = "" if encapsulated else UNUSED
    if encapsulated and seen.sas:
        return Probed(PORTS, Passage.PASSES, f"{peer} answered")
    if seen.sas or before.ike_in or seen.proof.ike_in:
        return Probed(UDP_500, Passage.PASSES, f"{peer} answered{unused}")
    if before.closed:
        return Probed(
            UDP_500,
            Passage.PASSES,
            f"{peer} answered that no program listens there, so it has no charon{unused}",
        )
    if before.ike_out and found.verdict not in UNTRIED:
        return Probed(
            PORTS,
            Passage.HELD_BACK,
            f"{peer} did not answer {before.ike_out} of IKE: a rule is missing at one end, or that"
            " VM's agent does not run",
        )
    return Probed(PORTS, Passage.NOT_TRIED, found.message)


def _esp(seen: Observation, found: Finding, kind: str) -> Probed:
    peer, window = seen.pair.peer, seen.proof
    rule = f"ESP ({kind})"
    if seen.esp_both_ways:
        return Probed(
            rule, Passage.PASSES, f"{window.esp_out} went to {peer}, {window.esp_in} came back"
        )
    if seen.sas and window.esp_out and not window.esp_in:
        return Probed(
            rule,
            Passage.HELD_BACK,
            f"{window.esp_out} went to {peer}, none came back: the rule is missing here or there."
            " Run the same on that VM: what comes in there tells which",
        )
    if found.verdict is Verdict.NO_ESP:
        return Probed(rule, Passage.HELD_BACK, found.message)
    return Probed(
        rule, Passage.NOT_TRIED, "no SA with it was made" if not seen.sas else found.message
    )


def told(results: tuple[Probed, ...]) -> tuple[str, ...]:
    """The results as comments among the lines for a shell."""
    return tuple(f"# {one.rule}: {one.passage.value}: {one.why}" for one in results)
