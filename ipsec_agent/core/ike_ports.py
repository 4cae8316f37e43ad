"""Whether charon has the UDP ports that IKE needs, in each family in which it must negotiate."""

from ipsec_agent.core.coverage import families
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import IkePorts, Observed, PortHolder
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
        if (holder.version in used or (4 in used and _has_ipv4s(holder, ports)))  # noqa: PLR2004 - IPv4
        # What listens on a loopback address takes no packet, but may have been there first.
        and (not holder.address.is_loopback or holder.port in closed)
    )


def _has_ipv4s(holder: PortHolder, ports: IkePorts) -> bool:
    """Whether a socket is on :: and has the port for IPv4, too.

    charon shares its ports with nobody: where it has this one, the socket is one of IPv6 alone
    (IPV6_V6ONLY).
    """
    return holder.address.is_unspecified and (4, holder.port) not in ports.owned


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
