"""The two lists of subnets: what they may contain, and what no-ipsec leaves of ipsec."""

from collections.abc import Sequence

from msgspec import Struct

from ipsec_agent.core.config import Subnet
from ipsec_agent.core.manifest.addresses import (
    WRITE_SUBNET,
    network_as_ipv4,
    no_subnet,
    read_network,
)
from ipsec_agent.core.manifest.complaint import shown
from ipsec_agent.core.manifest.fields import Fields
from ipsec_agent.core.manifest.yaml_lines import Entry
from ipsec_agent.core.model import Network
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.ranges import Subnets

IPSEC, NO_IPSEC = "ipsec_subnets", "no_ipsec_subnets"
MAX_SUBNETS = 1000
"""Of each list; every subnet is a connection of charon's and policies in the kernel."""


class Listed(Struct, frozen=True):
    """A subnet and its place in the file."""

    line: int
    path: str
    subnet: Subnet


def read_subnets(fields: Fields) -> tuple[tuple[Subnet, ...], tuple[Subnet, ...]]:
    """ipsec_subnets and no_ipsec_subnets, as written and normalised; host bits are allowed."""
    ipsec, no_ipsec = _list(fields, IPSEC), _list(fields, NO_IPSEC)
    for item in (*ipsec, *no_ipsec):
        _mapped(fields, item)
    for item in ipsec:
        reason = _not_for_ipsec(item.subnet.network)
        if reason and not network_as_ipv4(item.subnet.network):
            fields.complaints.error(
                item.line, item.path, f"{item.subnet.written} {reason}", "list subnets of VMs"
            )
    _twice(fields, ipsec)
    _twice(fields, no_ipsec)
    _covered(fields, ipsec, no_ipsec)
    return tuple(item.subnet for item in ipsec), tuple(item.subnet for item in no_ipsec)


def _list(fields: Fields, name: str) -> tuple[Listed, ...]:
    found = fields.entry(name)
    if found is None or found[1].elements == ():
        if name == IPSEC:
            fields.missing(
                name, "must list at least one subnet", "write, for example, `- 10.0.0.0/20`"
            )
        return ()
    path, entry = found
    if entry.elements is None:
        fields.wrong(name, "must be a list", "write each subnet on a line of its own, after `- `")
        return ()
    if len(entry.elements) > MAX_SUBNETS:
        fields.wrong(name, f"has more than {MAX_SUBNETS} subnets", "use fewer, wider ones")
        return ()
    listed = []
    for position, item in enumerate(entry.elements):
        where = f"{path}[{position}]"
        # A number would be read as an address.
        text = item.value.strip() if isinstance(item.value, str) else ""
        try:
            listed.append(Listed(item.line, where, Subnet(text, read_network(text))))
        except ValueError:
            if not item.void:
                fields.complaints.error(item.line, where, *_no_subnet(item))
    return tuple(listed)


def _no_subnet(item: Entry) -> tuple[str, str]:
    """What is wrong with what is no subnet, and what to do."""
    if item.empty:
        return "is empty", "delete this dash, or write a subnet after it"
    if item.elements is not None:
        return "must be a subnet, not a list", "write one dash before each subnet"
    if not isinstance(item.value, str):
        what = "this" if item.value is None else shown(item.value)
        return f"{what} is not a subnet", WRITE_SUBNET
    message, remedy = no_subnet(item.value.strip())
    return f"{shown(item.value)} {message}", remedy


def _mapped(fields: Fields, item: Listed) -> None:
    """Refuse IPv4 written as IPv6: no packet has such an address, so it would be without effect."""
    ipv4 = network_as_ipv4(item.subnet.network)
    if ipv4:
        fields.complaints.error(
            item.line, item.path, f"{item.subnet.written} is IPv4 written as IPv6", f"write {ipv4}"
        )


def _not_for_ipsec(network: Network) -> str:
    """Why no VM of a deployment can have an address of this subnet, "" where one can."""
    for named, holds in (
        ("loopback", network.is_loopback),
        ("multicast", network.is_multicast),
        ("link-local", network.is_link_local),
        ("unspecified", network.is_unspecified and network.prefixlen > 0),
    ):
        if holds:
            return f"cannot be encrypted: it is {named}"
    return ""


def _twice(fields: Fields, listed: Sequence[Listed]) -> None:
    seen: dict[Network, str] = {}
    for item in listed:
        network = item.subnet.network
        if network in seen:
            message = (
                f"{seen[network]} and {item.subnet.written} are the same subnet"
                if seen[network] != item.subnet.written
                else f"{item.subnet.written} is listed twice"
            )
            fields.complaints.warn(item.line, item.path, message, "remove one")
        seen.setdefault(network, item.subnet.written)


def _covered(fields: Fields, ipsec: Sequence[Listed], no_ipsec: Sequence[Listed]) -> None:
    """Warn of ipsec subnets of which the no-ipsec subnets leave nothing."""
    written = {item.subnet.network: item for item in reversed(no_ipsec)}
    exempt = Subnets(written)
    wanted = dict.fromkeys(item.subnet.network for item in ipsec)
    for network in Promise(tuple(wanted), tuple(written)).covered:
        holding = next(exempt.around(network), None)
        whole = written[holding] if holding is not None else None
        fields.complaints.warn(
            whole.line if whole else fields.line(NO_IPSEC),
            whole.path if whole else fields.path(NO_IPSEC),
            f"no address of {network} is encrypted:"
            f" {whole.subnet.written + ' covers' if whole else 'these together cover'} it, and"
            " no-ipsec always wins",
            "narrow the no-ipsec subnet unless this is intended",
        )
