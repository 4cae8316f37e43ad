"""How a second SA with a peer takes the traffic over without losing a packet.

The end that begins a negotiation has its inbound SA only once it has read the answer. The end that
answers would send on the new SA before it sends that answer, and all that it sends until then is
lost: 47 of 4,735 packets in a slow guest. What strongSwan 5.9.8 and 6.0.1 do (source):

- Only a rekeying has the answering end wait (child_sa.c: register_outbound; child_rekey.c installs
  at the DELETE of the old SA), and only within one IKE_SA. No exchange does it for another IKE_SA.
- To begin without a child, and to ask for one by CREATE_CHILD_SA, makes the time shorter (no
  signature, no certificate is checked in it), not zero.
- The kernel does not choose among the SAs of a reqid: the policy out names an SPI
  (kernel_netlink_ipsec.c: add_policy_internal). charon keeps all that want a selector in the order
  of their priority, those of one priority the youngest first; only the first is in the kernel, and
  when it goes the next one takes its place by one replacement (add_policy, del_policy).
- A child has a priority of its own (swanctl.conf: priority), and an SA keeps that of the child that
  it was made with, rekeyed or not.
- Which child answers is chosen by selectors and label (peer_cfg.c: select_child_cfg). A label of
  mode `simple`, strongSwan's own since 5.9.6, is not passed to the kernel and leaves the reqid
  alone (child_sa.c: label_for). A rekeying keeps child and label.
- Another reqid would have the policy in refuse what arrives on the new SA; a child without policies
  would leave the choice to the kernel, which takes the youngest; a policy of the agent's that names
  the old SPI would send into nothing from the next rekeying on.
- While a renewal's connection is loaded, it is the one that answers the peer (swanctl.py), and its
  IKE_SA is taken for what this VM asks for next (ike_sa_manager.c: checkout_by_config).
- A CHILD_SA's DELETE is obeyed before it is answered, that of an IKE_SA afterwards (child_delete.c:
  build_r; task_manager_v2.c: build_response).

So each trap has further children behind it that answer to a label only, with a worse priority each:
an SA of theirs is installed both ways and receives, while the old one goes on to send. The end that
began sends on the new SA at once, since the other one has it. Then it ends the old CHILD_SA, on
which it does not send: the other end moves on to the new SA while it obeys, and what it sent before
still finds the old SA, which goes with its answer. Wherever this is cut, both ways have an SA.
Only where the old SA is rekeyed just in between, the end that asked sends on it again, and what it
sends while the other one obeys is lost. So is what the network delivers only after the answer that
was sent behind it.

Since an SA keeps its level for life, the next one must be worse again: who was asked last time asks
first the next time, which begins at 0. A label that the peer does not know (an agent of before, or
above LEVELS) leaves an IKE_SA without a child, in which the ordinary child is negotiated.
"""

import re

from ipsec_agent.core.model import Child

LEVELS = 2
"""Further children of a trap; each costs some 0.3 kB of each list-conns."""

_BASE, _BIT, _HOSTS = 2 * 200_000, 512, {4: 64, 6: 256}
"""As charon works out the priority of an SA's policies; it is of two hosts (transport mode)."""

_ASKED, _ANSWERED = re.compile(r"-after-(\d+)$"), re.compile(r"-later-(\d+)$")


def asking(name: str, level: int) -> str:
    """The name of the child of a renewal that asks for a level."""
    return f"{name}-after-{level}"


def answering(name: str, level: int) -> str:
    """The name of the child behind a trap's that answers it."""
    return f"{name}-later-{level}"


def label(level: int) -> str:
    """What both have in common."""
    return f"ipsec-agent-later-{level}"


def priority(child: Child, level: int) -> int:
    """Of the policies of an SA at a level: behind those of the levels below."""
    return _BASE - _BIT * _HOSTS[child.local.network.version] - 1 + level


def level_here(child: str) -> int:
    """The level that a CHILD_SA has at this end, by the name of its child."""
    found = _ANSWERED.search(child)
    return int(found[1]) if found else 0


def level_there(child: str) -> int:
    """The level that it has at the peer."""
    found = _ASKED.search(child)
    return int(found[1]) if found else 0
