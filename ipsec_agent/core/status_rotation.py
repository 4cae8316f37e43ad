"""The status document's part about certificates in use: what each peer's SA was made with."""

from collections import Counter
from typing import Any

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address, CredentialSet
from ipsec_agent.core.observed import IkeSa
from ipsec_agent.core.rotation import Behind, behind, in_force, peers_with_sas, standing
from ipsec_agent.core.words import dated


def of_peers(drift: Drift) -> dict[Address, dict[str, Any]]:
    """By peer: its identity, and with which certificate of ours the SA that carries its traffic was
    made. Peers without an IKE_SA have nothing.
    """
    charon, wanted = drift.observed.charon, in_force(drift.desired)
    if charon is None:
        return {}
    late = {one.pair[1]: one.ends_in for one in behind(drift)}
    sets = {one.mark: one for one in charon.sets if one.mark}
    found = {}
    for sa in sorted(charon.sas, key=_weight):
        used = sets.get(sa.made_with)
        left = late.get(sa.remote)
        found[sa.remote] = {
            "identity": sa.remote_id,
            "certificate": used.subject if used else "",
            "certificate_ends": used.expires if used else None,
            "certificate_state": standing(sa, wanted, charon.sets).value if wanted else "",
            "ends_in": None if left is None else round(left),
        }
    return found


def _weight(sa: IkeSa) -> tuple[bool, int]:
    """The one that carries the traffic comes last: the youngest with a CHILD_SA."""
    installed = any(child.state == "INSTALLED" for child in sa.children)
    return installed, -sa.age


NO_IKE: dict[str, Any] = {
    "identity": "",
    "certificate": "",
    "certificate_ends": None,
    "certificate_state": "",
    "ends_in": None,
}
"""Of a peer without an IKE_SA."""


def summary(drift: Drift) -> dict[str, Any]:
    """How many peers are behind, and on what they are."""
    late = behind(drift)
    counted = Counter(one.made_with for one in late)
    return {
        "peers": peers_with_sas(drift),
        "behind": len(late),
        "on": [
            {
                "certificate": used.subject if used else "",
                "certificate_ends": used.expires if used else None,
                "peers": count,
            }
            for used, count in counted.most_common()
        ],
    }


def told(late: tuple[Behind, ...], peers: int) -> str:
    """Such as: 38 of 45 peers are still on CN=vm1 (ends 2027-01-03)."""
    counted = Counter(one.made_with for one in late)
    on = [_dated(used) for used, _ in counted.most_common(2)]
    last = "others" if len(counted) > len(on) else on.pop()
    return f"{len(late)} of {peers} peers are still on {', '.join(on)}{' or ' if on else ''}{last}"


def _dated(used: CredentialSet | None) -> str:
    return dated("", None) if used is None else dated(used.subject, used.expires)
