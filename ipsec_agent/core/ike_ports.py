"""Whether charon has the UDP ports that IKE needs, in each family in which it must negotiate."""

from collections.abc import Iterator

from ipsec_agent.core.model import Action, Desired
from ipsec_agent.core.observed import Observed, PortHolder
from ipsec_agent.core.problems.problem import Problem, Severity
from ipsec_agent.core.strongswan_conf import IKE_PORTS

RESERVED = (
    ". `sysctl net.ipv4.ip_unprivileged_port_start=4501` keeps ordinary users from it, and from"
    " every port below"
)
"""Where it is another user's than root: 500 is root's anyway."""


def families(desired: Desired) -> frozenset[int]:
    """The families, 4 and 6, in which this VM encrypts."""
    return frozenset(
        connection.remote.version
        for connection in desired.connections
        if connection.action is Action.ENCRYPT
    )


def lacking(desired: Desired, observed: Observed) -> tuple[tuple[int, int], ...]:
    """Family and port of each socket that charon needs and has not."""
    ports = observed.ike_ports
    if observed.charon is None or ports is None:
        return ()
    return tuple(
        (family, port)
        for family in sorted(families(desired))
        for port in IKE_PORTS
        if (family, port) not in ports.owned
    )


def in_the_way(desired: Desired, observed: Observed) -> tuple[PortHolder, ...]:
    """Sockets of others on charon's ports: they keep it from opening its own."""
    ports = observed.ike_ports
    if ports is None:
        return ()
    used = families(desired)
    closed = {port for _, port in lacking(desired, observed)}
    return tuple(
        holder
        for holder in ports.others
        # A socket on :: may have the port for IPv4, too.
        if (holder.version in used or (holder.address.is_unspecified and 4 in used))  # noqa: PLR2004 - IPv4
        # What listens on a loopback address takes no packet, but may have been there first.
        and (not holder.address.is_loopback or holder.port in closed)
    )


def reopens(desired: Desired, observed: Observed) -> bool:
    """Whether a new charon would have the ports that this one lacks.

    It opens them at its start only. If no process had one since then, another start is in vain.
    """
    ports = observed.ike_ports
    return (
        ports is not None
        and ports.contested
        and bool(lacking(desired, observed))
        and not in_the_way(desired, observed)
    )


def ike_port_problems(desired: Desired, observed: Observed) -> Iterator[Problem]:
    """What keeps IKE from running although charon does."""
    if desired.credentials is None:
        return
    holders = in_the_way(desired, observed)
    for port, pid, name, user in sorted(
        {(one.port, one.pid, one.name, one.user) for one in holders}
    ):
        who = f"pid {pid} ({name})" if pid else "a process that the agent cannot see"
        who += f" of user {user}" if user else ""
        yield Problem(
            "ike-port-taken",
            Severity.CRITICAL,
            f"UDP {port} is in use by {who}, so charon cannot negotiate",
            f"stop that program; `ss -lunp sport = :{port}` shows its sockets. Once the port is"
            " free, the agent restarts charon" + (RESERVED if user else ""),
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
