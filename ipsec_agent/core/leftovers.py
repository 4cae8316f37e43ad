"""IKE_SAs that a trap has made and that carry nothing: the newest with a peer stays, others end.

charon makes an IKE_SA for each packet that finds no SA (trap_manager.c, acquire), and keeps it if
the peer refuses the CHILD_SA (child_create.c, handle_child_sa_failure). It is rekeyed for ever, so
whoever keeps sending to a peer without ESP would fill the memory of both. The newest one says that
IKE works.
"""

from ipsec_agent.core.drift import Drift
from ipsec_agent.core.model import Address
from ipsec_agent.core.steps import TerminateSa

SETTLED = 15
"""Seconds of age from which an IKE_SA counts: what was negotiated with it is over."""

_Pair = tuple[Address, Address]


def endings(drift: Drift) -> tuple[TerminateSa, ...]:
    """The steps that leave one with each peer, or one that each has begun; who began it ends it.

    Of two that were begun at once, each VM may take the other's for the newer one. So the VM with
    the higher address keeps the newest of its own: else both would end, and none be left.
    One of another connection is left alone: a renewal or a rehearsal may still need it.
    """
    charon, seen, own = drift.observed.charon, set[_Pair](), set[_Pair]()
    ours = {connection.name for connection in drift.desired.connections}
    steps = []
    for sa in sorted(charon.sas if charon else (), key=lambda one: -one.unique_id):
        if sa.state != "ESTABLISHED" or sa.children or sa.name not in ours:
            continue
        pair = sa.local, sa.remote
        newer = seen if int(sa.local) < int(sa.remote) else own
        if pair in newer and sa.initiator and sa.age >= SETTLED:
            because = f"it carries nothing, and a newer one with {sa.remote} is there"
            steps.append(TerminateSa(sa.unique_id, because))
        seen.add(pair)
        if sa.initiator:
            own.add(pair)
    return tuple(steps)
