"""What the kernel's counters of IPsec packets that went wrong mean here, and when they alarm.

Each counts dropped packets. Names and meanings are those of the kernel's xfrm_proc.rst
(Documentation/networking) and of the places that count, in net/xfrm; the causes are those that a
deployment of this agent's has.
"""

import re
from collections.abc import Iterable

from msgspec import Struct

from ipsec_agent.core.problems.problem import Problem, Severity

WINDOW = 30.0
"""Seconds over which a rise is measured; longer where passes are further apart."""

APART = 1.0
"""Seconds between two samples that are remembered."""


class Meaning(Struct, frozen=True):
    """What a counter means.

    Attributes:
        most: packets within WINDOW that are normal.
    """

    says: str
    hint: str
    severity: Severity = Severity.WARNING
    most: int = 0


class Rise(Struct, frozen=True):
    """A counter that rose: by so many packets within so many seconds."""

    name: str
    packets: int
    seconds: float


Sample = tuple[float, tuple[tuple[str, int], ...]]
"""A time, seconds since the epoch, and the counters then."""

Memory = tuple[Sample, ...]
"""The samples of the last WINDOW, and the one before it; oldest first."""

PEER = "compare both VMs' `ipsec-agent status`; terminate the SA to have a new one negotiated"
MEMORY = "check the VM's free memory and `dmesg`"
FOREIGN = "find the policy with `ip xfrm policy`, and who installed it; this agent installs none"
WAITS = "do nothing if it stops within seconds; otherwise check the silent peers"
KERNEL = "check `dmesg`; compare the kernel with that of a VM that works"

MEANINGS = {
    "XfrmInError": Meaning("decrypted packets could not be delivered, or memory is short", MEMORY),
    "XfrmInBufferError": Meaning("memory for arriving ESP is short, or ESP is nested", MEMORY),
    "XfrmInHdrError": Meaning("ESP or what was inside it has no valid header", PEER),
    "XfrmInNoStates": Meaning(
        "a peer sends ESP for an SA that this VM no longer has, as after a crash of this VM",
        "do nothing if it stops within 15 s, when the peer notices; otherwise terminate the SA"
        " there",
        most=10,
    ),
    "XfrmInStateProtoError": Meaning("ESP arrives altered, or made with another key", PEER),
    "XfrmInStateModeError": Meaning("ESP of another mode than transport arrives", PEER),
    "XfrmInStateSeqError": Meaning(
        "ESP arrives twice or very late: replayed, or reordered by the network",
        "check whether the network duplicates packets or delivers them seconds late",
        most=100,
    ),
    "XfrmInStateExpired": Meaning(
        "a peer uses an SA that has expired here: it was not rekeyed in time", PEER
    ),
    "XfrmInStateMismatch": Meaning(
        "ESP arrives in UDP where plain ESP was negotiated, or the other way round",
        "compare force_udp_encapsulation of both VMs; look for a NAT in between",
    ),
    "XfrmInStateInvalid": Meaning(
        "ESP arrived under an SA that was just being deleted", WAITS, Severity.INFO
    ),
    "XfrmInTmplMismatch": Meaning(
        "packets arrived in clear, or under another SA, where our policies require ESP",
        "find the peer in the guard's counters: it sends clear, or its way back avoids IPsec, as"
        " with a load balancer that keeps the client's address",
        most=10,
    ),
    "XfrmInNoPols": Meaning(
        "ESP arrived for which this VM has no policy",
        "compare ipsec_subnets and no_ipsec_subnets of both VMs",
        most=10,
    ),
    "XfrmInPolBlock": Meaning("a policy blocks what arrives", FOREIGN),
    "XfrmInPolError": Meaning("a policy ended while a packet arrived", WAITS, Severity.INFO),
    "XfrmAcquireError": Meaning(
        "packets met an SA that is still being negotiated", WAITS, Severity.INFO
    ),
    "XfrmFwdHdrError": Meaning(
        "packets for a container could not be routed after decryption",
        "check that the container is still there (`ip route get ADDRESS`), and free memory",
    ),
    "XfrmInStateDirError": Meaning("ESP arrives under an SA that only sends", PEER),
    "XfrmInIptfsError": Meaning("ESP of mode IP-TFS arrives, which no VM negotiates", PEER),
    "XfrmOutError": Meaning("packets could not be sent as ESP", MEMORY),
    "XfrmOutBundleGenError": Meaning("no SA or route could be put together for packets", KERNEL),
    "XfrmOutBundleCheckError": Meaning("the SA for packets is no longer usable", KERNEL),
    "XfrmOutNoStates": Meaning(
        "packets wait for IKE and are dropped meanwhile, as the first one to each peer is",
        WAITS,
        Severity.INFO,
        most=30,
    ),
    "XfrmOutStateProtoError": Meaning("encryption failed", KERNEL),
    "XfrmOutStateModeError": Meaning(
        "ESP did not fit into a packet, or its mode is not that of the SA",
        "check the MTU of the links",
    ),
    "XfrmOutStateSeqError": Meaning(
        "an SA has used up its sequence numbers: it was not rekeyed in time",
        "see charon's log for why rekeying fails",
        Severity.ERROR,
    ),
    "XfrmOutStateExpired": Meaning(
        "an SA has expired before it was rekeyed", "see charon's log for why rekeying fails"
    ),
    "XfrmOutPolBlock": Meaning("a policy blocks what this VM sends", FOREIGN),
    "XfrmOutPolDead": Meaning("a policy ended while packets used it", WAITS, Severity.INFO),
    "XfrmOutPolError": Meaning("a policy could not be applied", KERNEL),
    "XfrmOutStateInvalid": Meaning(
        "packets used an SA that was just being deleted", WAITS, Severity.INFO
    ),
    "XfrmOutStateDirError": Meaning("packets were to use an SA that only receives", KERNEL),
    "XfrmOutNoQueueSpace": Meaning("packets found a full queue of mode IP-TFS", KERNEL),
}
UNKNOWN = Meaning("this version does not know this counter", "see xfrm_proc.rst of your kernel")


def risen(
    before: Iterable[tuple[str, int]], after: Iterable[tuple[str, int]], seconds: float
) -> tuple[Rise, ...]:
    """The counters that rose between two readings; one that fell was reset and began at 0."""
    earlier = dict(before)
    return tuple(
        Rise(name, rise, seconds)
        for name, count in after
        if (rise := count - (was if (was := earlier.get(name, 0)) <= count else 0)) > 0
    )


def problems(rises: tuple[Rise, ...]) -> tuple[Problem, ...]:
    """A problem for each counter that rose by more than is usual."""
    return tuple(
        Problem(
            code(rise.name),
            meaning.severity,
            f"{rise.name} rose by {rise.packets} in {rise.seconds:.0f} s: {meaning.says}",
            meaning.hint,
        )
        for rise in rises
        if rise.packets * min(1.0, WINDOW / rise.seconds)
        > (meaning := MEANINGS.get(rise.name, UNKNOWN)).most
    )


def watched(
    counters: tuple[tuple[str, int], ...], memory: Memory, now: float
) -> tuple[tuple[Rise, ...], Memory]:
    """What rose within the last WINDOW, and the next memory.

    Args:
        counters: of this pass; empty where the kernel keeps none, or they were not read.
        memory: from the pass before; () at first, when nothing is known to have risen.
        now: seconds since the epoch.
    """
    past = tuple(sample for sample in memory if sample[0] < now)
    recent = tuple(sample for sample in past if sample[0] > now - WINDOW)
    kept = past[-len(recent) - 1 :] if len(recent) < len(past) else past
    if not counters:
        return (), kept
    rises = risen(kept[0][1], counters, now - kept[0][0]) if kept else ()
    return rises, kept if kept and now - kept[-1][0] < APART else (*kept, (now, counters))


def code(name: str) -> str:
    """The problem's code for a counter: xfrm-in-no-states for XfrmInNoStates."""
    return re.sub(r"(?<=.)(?=[A-Z])", "-", name).lower()
