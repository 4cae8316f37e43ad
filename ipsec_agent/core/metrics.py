"""The metrics: which numbers of the status a monitoring system gets, their names, kinds and help.

Made of the document of `status --json`, so that both always say the same. The number of series is
bounded: peers are counted by state, and have series of their own only where somebody asks. Names
follow prometheus.io/docs/practices/naming.
"""

import enum
from collections import Counter
from collections.abc import Iterable, Mapping
from datetime import datetime
from typing import Any

from msgspec import Struct

from ipsec_agent.core.problems.problem import Severity

PREFIX = "ipsec_agent_"

STATES = ("starting", "running", "degraded", "draining", "stopped")
GUARD_STATES = ("up", "missing", "altered", "lowered", "none")
PEER_STATES = ("installed", "connecting", "orphan", "unknown", "refused", "silent", "gone")
"""Those that each answer has, with 0 where there is none; an IKE_SA may have others."""

ACTIONS = ("encrypt", "clear")
WAYS = ("in", "out")

GUARD_LISTS = (
    *("clear_in", "clear_out", "wrong_source"),
    *("nat_bypassed", "wrong_mode", "unguarded"),
)
"""The guard's lists, by their keys in the status."""

Labels = tuple[tuple[str, str], ...]
Sample = tuple[Labels, float]


class Kind(enum.Enum):
    """What a number does: goes both ways, only grows, or is a text in its labels."""

    GAUGE = "gauge"
    COUNTER = "counter"
    INFO = "info"


class Family(Struct, frozen=True):
    """Samples of one name.

    Attributes:
        name: with the prefix and the unit; without `_total` and `_info`, which its kind adds.
        unit: of the values, which is also the end of the name; "" for numbers of things.
        samples: labels and value of each; an info's value is not used.
    """

    name: str
    kind: Kind
    text: str
    samples: tuple[Sample, ...]
    unit: str = ""


def families(status: Mapping[str, Any], *, peers: bool = False) -> tuple[Family, ...]:
    """The metrics of a status document, in an order that stays.

    Args:
        status: of a running agent, of one that has not looked yet, or of none.
        peers: also series for each peer.
    """
    found = [*_agent(status), *_problems(status["problems"])]
    if "charon" in status:
        found += [
            *_look(status),
            *_charon(status["charon"]),
            *_policies(status),
            *_peers(status["peers"]),
            *_guard(status["guard"]),
            *_optional(status["optional"]),
            *_counters(status["counters"]),
            *_certificates(status["certificates"]),
            *_proof(status["proof"]),
            *_outages(status["outages"]),
        ]
        if peers:
            found += _each_peer(status["peers"])
    return tuple(found)


def _one(name: str, text: str, value: float, unit: str = "") -> Family:
    return _many(name, text, ((), value), unit=unit)


def _many(
    name: str, text: str, *samples: Sample, unit: str = "", kind: Kind = Kind.GAUGE
) -> Family:
    return Family(PREFIX + name, kind, text, samples, unit)


def _by(label: str, counts: Mapping[str, float]) -> tuple[Sample, ...]:
    return tuple((((label, value),), number) for value, number in counts.items())


def _chosen(label: str, states: Iterable[str], state: str) -> tuple[Sample, ...]:
    """One of some states: 1 for the one that is, 0 for the others."""
    return _by(label, {**dict.fromkeys(states, 0), state: 1})


def _agent(status: Mapping[str, Any]) -> Iterable[Family]:
    state = status["state"]
    yield _one("up", "1 where the agent answers.", state != "stopped")
    yield _one("healthy", "1 where the status is healthy.", status["healthy"])
    yield _many("state", "State of the agent.", *_chosen("state", STATES, state))
    if "version" in status:
        version = ((("version", status["version"]),), 1)
        yield _many("build", "Version of the agent.", version, kind=Kind.INFO)


def _problems(problems: Iterable[Mapping[str, Any]]) -> Iterable[Family]:
    loud = Counter(problem["severity"] for problem in problems)
    codes = Counter((problem["code"], problem["severity"]) for problem in problems)
    yield _many(
        "problems",
        "Problems that the status shows, by severity.",
        *_by("severity", {one.value: loud[one.value] for one in Severity}),
    )
    yield _many(
        "problem",
        "Problems that the status shows, by code; docs/problems.md has an entry for each.",
        *(
            ((("code", code), ("severity", severity)), number)
            for (code, severity), number in sorted(codes.items())
        ),
    )


def _look(status: Mapping[str, Any]) -> Iterable[Family]:
    yield _one(
        "last_look_timestamp_seconds",
        "Time of the look that these numbers are of.",
        status["time"],
        "seconds",
    )
    yield _many(
        "looks", "Looks since the agent's start.", ((), status["passes"]), kind=Kind.COUNTER
    )
    yield _one("encrypts", "1 where the config has this VM encrypt.", status["role"] == "encrypt")


def _charon(charon: Mapping[str, Any] | None) -> Iterable[Family]:
    yield _one("charon_up", "1 where charon runs.", charon is not None)
    if charon is None:
        return
    yield _one("charon_responsive", "1 where charon answers.", charon["responsive"])
    yield _one("charon_start_time_seconds", "Time of charon's start.", charon["started"], "seconds")
    yield _one(
        "charon_resident_memory_bytes", "Memory that charon uses.", charon["memory"], "bytes"
    )
    version = ((("version", charon["version"]),), 1)
    yield _many("charon", "Version of strongSwan.", version, kind=Kind.INFO)


def _policies(status: Mapping[str, Any]) -> Iterable[Family]:
    connections, policies = status["connections"], status["policies"]
    wanted = Counter(one["action"] for one in connections)
    lacking = Counter(one["action"] for one in connections if not one["enforced"])
    for name, text, counts in (
        ("connections", "Subnets of the config.", wanted),
        ("connections_not_enforced", "Those of them that lack a policy in the kernel.", lacking),
    ):
        yield _many(name, text, *_by("action", {action: counts[action] for action in ACTIONS}))
    for name, text, number in (
        ("desired", "Policies that the config wants in the kernel.", policies["desired"]),
        ("missing", "Those of them that are not there.", len(policies["missing"])),
        ("foreign", "Policies of others in the kernel.", len(policies["foreign"])),
    ):
        yield _one(f"policies_{name}", text, number)


def _peers(peers: Iterable[Mapping[str, Any]]) -> Iterable[Family]:
    states = Counter(peer["state"] for peer in peers)
    codes = Counter(peer["problem"] for peer in peers if peer["problem"])
    one_way = Counter(peer["one_way"] for peer in peers)
    yield _many(
        "peers",
        "Peers with SAs, and those with which something fails, by state.",
        *_by("state", {**dict.fromkeys(PEER_STATES, 0), **dict(sorted(states.items()))}),
    )
    yield _many(
        "peers_failing",
        "Peers with which something fails, by the problem's code.",
        *_by("code", dict(sorted(codes.items()))),
    )
    yield _many(
        "peers_one_way",
        "Peers whose packets go only one way.",
        *_by("direction", {way: one_way[way] for way in WAYS}),
    )
    for name, key, text in (
        ("ike_sas", "ike_sas", "IKE_SAs."),
        ("child_sas", "child_sas", "Installed CHILD_SAs."),
        ("duplicate_sas", "duplicates", "CHILD_SAs beyond one for each peer."),
    ):
        yield _one(name, text, sum(peer[key] for peer in peers))
    for unit in ("bytes", "packets"):
        yield _many(
            f"sa_{unit}",
            f"{unit.capitalize()} of the SAs that exist now; falls when an SA ends.",
            *_by("direction", {way: sum(peer[f"{unit}_{way}"] for peer in peers) for way in WAYS}),
            unit=unit,
        )


def _guard(guard: Mapping[str, Any]) -> Iterable[Family]:
    yield _many(
        "guard_state", "State of the guard.", *_chosen("state", GUARD_STATES, guard["state"])
    )
    yield _one("guard_drops", "1 where the guard drops, 0 where it only counts.", guard["drops"])
    yield _many(
        "guard_clear_packets",
        "Clear packets between encrypted addresses, dropped where guard_drops is 1, since the"
        " table was loaded.",
        *_by("direction", {way: guard[f"dropped_{way}"] for way in WAYS}),
        unit="packets",
        kind=Kind.COUNTER,
    )
    yield _many(
        "guard_listed",
        "Addresses or links that the guard has counted within an hour, by its list.",
        *_by("list", {key: len(guard[key]) for key in GUARD_LISTS}),
    )


def _optional(optional: Mapping[str, Any] | None) -> Iterable[Family]:
    yield _one("optional", "1 while IPsec is optional.", optional is not None)
    found = optional or {"would_cut_off": (), "unseen": ()}
    yield _one(
        "optional_would_cut_off_peers",
        "Peers that enforcing would cut off now.",
        len(found["would_cut_off"]),
    )
    yield _one(
        "optional_unseen_peers",
        "Peers that had an SA, and now have neither one nor clear traffic.",
        len(found["unseen"]),
    )


def _counters(counters: Mapping[str, int]) -> Iterable[Family]:
    yield _many(
        "xfrm_errors",
        "Packets that IPsec dropped, by the kernel's counters (/proc/net/xfrm_stat).",
        *_by("counter", dict(sorted(counters.items()))),
        kind=Kind.COUNTER,
    )


def _certificates(certificates: Iterable[Mapping[str, Any]]) -> Iterable[Family]:
    """The first end of each name. All that peers have shown counts as one."""
    ends: dict[Labels, float] = {}
    for one in certificates:
        shown = one["role"] == "peer"
        labels = (("role", one["role"]), ("subject", "" if shown else one["subject"]))
        end = datetime.fromisoformat(one["not_after"]).timestamp()
        ends[labels] = min(end, ends.get(labels, end))
    yield _many(
        "certificate_not_after_timestamp_seconds",
        "End of a certificate; of those that peers have shown, the first end.",
        *ends.items(),
        unit="seconds",
    )


def _proof(proof: Mapping[str, Any] | None) -> Iterable[Family]:
    """Only while it is on; a verdict has a series where a peer has it, and `proven` always."""
    if proof is None:
        return
    yield _many(
        "proof_peers",
        "Peers by the verdict of their newest proof (agent.proof).",
        *_by("verdict", {"proven": 0, **proof["verdicts"]}),
    )
    yield _one(
        "proof_peers_failing", "Peers with two or more failed proofs in a row.", proof["failing"]
    )
    if proof["oldest"] is not None:
        yield _one(
            "proof_oldest_timestamp_seconds",
            "Time of the proof that is the longest ago.",
            proof["oldest"],
            "seconds",
        )


def _outages(outages: Iterable[Mapping[str, Any]]) -> Iterable[Family]:
    yield _one(
        "peers_cut_off", "Peers that are cut off now.", sum(not one["end"] for one in outages)
    )


def _peers_proven(named: Iterable[tuple[Labels, Mapping[str, Any]]]) -> Family:
    return _many(
        "peer_proven",
        "1 where the newest proof of the peer has succeeded.",
        *((label, peer["proof"]["proven"]) for label, peer in named if peer["proof"]),
    )


def _each_peer(peers: Iterable[Mapping[str, Any]]) -> Iterable[Family]:
    named = tuple(((("peer", peer["address"]),), peer) for peer in peers)
    yield _many(
        "peer_state",
        "1 for the state of the peer.",
        *(((*label, ("state", peer["state"])), 1) for label, peer in named),
    )
    yield _many(
        "peer_failing",
        "1 for the code of what fails with the peer.",
        *(((*label, ("code", peer["problem"])), 1) for label, peer in named if peer["problem"]),
    )
    yield _peers_proven(named)
    yield _many(
        "peer_child_sas",
        "Installed CHILD_SAs with the peer.",
        *((label, peer["child_sas"]) for label, peer in named),
    )
    yield _many(
        "peer_sa_age_seconds",
        "Age of the oldest CHILD_SA with the peer.",
        *((label, peer["age"]) for label, peer in named if peer["child_sas"]),
        unit="seconds",
    )
    for name, key, unit, text in (
        ("peer_sa_bytes", "bytes", "bytes", "Bytes of the SAs that exist now with the peer."),
        ("peer_sa_packets", "packets", "packets", "Packets of the SAs that exist now with it."),
        ("peer_idle_seconds", "idle", "seconds", "Time since the last packet, where there is one."),
    ):
        yield _many(
            name,
            text,
            *(
                ((*label, ("direction", way)), value)
                for label, peer in named
                for way in WAYS
                if (value := peer[f"{key}_{way}"]) is not None
            ),
            unit=unit,
        )
