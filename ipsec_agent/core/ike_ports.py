"""Whether charon has the UDP ports that IKE needs, in each family in which it must negotiate."""

from ipsec_agent.core.coverage import families
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Observed, PortHolder
from ipsec_agent.core.strongswan_conf import IKE_PORTS


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
