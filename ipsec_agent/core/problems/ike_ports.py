"""The IKE ports' part of health: can charon negotiate at all."""

from collections.abc import Iterator
from shlex import quote

from ipsec_agent.core.ike_ports import in_the_way, lacking
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import NetworkFacts, Observed
from ipsec_agent.core.problems.problem import Problem, Severity, listed

RESERVED = (
    ". `sysctl net.ipv4.ip_unprivileged_port_start=4501` keeps ordinary users from it, and from"
    " every port below"
)
"""Where it is another user's than root: 500 is root's anyway."""


def _unseen(network: NetworkFacts) -> str:
    """Who has a port that no process is seen to have: WireGuard's links do not tell theirs."""
    own = tuple(link.name for link in network.links if link.kind == "wireguard")
    links = f", or the wireguard link {listed(own)}" if own else ""
    return f"a process that the agent cannot see{links}"


def ike_port_problems(desired: Desired, observed: Observed) -> Iterator[Problem]:
    """What keeps IKE from running although charon does."""
    if desired.credentials is None:
        return
    holders = in_the_way(desired, observed)
    for port, pid, name, user in sorted(
        {(one.port, one.pid, one.name, one.user) for one in holders}
    ):
        link = next((one for one in observed.network.links if one.port == port), None)
        if pid or link is None:
            who = f"pid {pid} ({name})" if pid else _unseen(observed.network)
            remedy = f"stop that program; `ss -lunp sport = :{port}` shows its sockets"
            if not pid and "wireguard" in who:
                remedy += ", and `wg show` the ports of WireGuard"
        else:
            who = f"the {link.kind} link {link.name}"
            remedy = f"give it another port; `ip -d link show {quote(link.name)}` shows it"
        who += f" of user {user}" if user else ""
        yield Problem(
            "ike-port-taken",
            Severity.CRITICAL,
            f"UDP {port} is in use by {who}, so charon cannot negotiate",
            f"{remedy}. Once the port is free, the agent restarts charon"
            + (RESERVED if user else ""),
            f"{port} {pid}",
        )
    if holders:
        return
    for family, port in lacking(desired, observed):
        yield Problem(
            "ike-port-closed",
            Severity.CRITICAL,
            f"charon has not opened UDP {port} for IPv{family}, so it cannot negotiate",
            "if another program had the port, the agent restarts charon; otherwise see charon's"
            " log (`could not open IPv… socket`)",
            f"{port} IPv{family}",
        )
