"""The rules that a platform's firewall needs for a config, as commands of that platform."""

import enum
from collections.abc import Callable, Iterable

from ipsec_agent.core.config import Config
from ipsec_agent.core.model import Network
from ipsec_agent.core.promise import Promise
from ipsec_agent.core.ranges import BITS

PORTS = (500, 4500)


class Platform(enum.StrEnum):
    """Whose firewall."""

    AWS = "aws"
    GCP = "gcp"
    AZURE = "azure"
    VSPHERE = "vsphere"
    OPENSTACK = "openstack"
    IBM = "ibm"


def rules(platform: Platform, config: Config) -> tuple[str, ...]:
    """The rules as lines for a shell; those that begin with # tell something.

    Both directions are needed; these are for what comes in. What goes out is free on most
    platforms.
    """
    networks = Promise.of(config).ipsec
    esp = not config.force_udp_encapsulation
    lines = [
        f"# from each of {', '.join(map(str, networks))}: UDP 500, UDP 4500"
        + (", protocol 50 (ESP)" if esp else "; ESP travels in UDP (force_udp_encapsulation)")
    ]
    return (*lines, *RULES[platform](networks, esp))


def _of(networks: Iterable[Network], version: int) -> tuple[str, ...]:
    return tuple(str(one) for one in networks if one.version == version)


def _aws(networks: tuple[Network, ...], esp: bool) -> list[str]:
    ranges = []
    if found := _of(networks, 4):
        ranges.append("IpRanges=[" + ",".join(f"{{CidrIp={one}}}" for one in found) + "]")
    if found := _of(networks, 6):
        ranges.append("Ipv6Ranges=[" + ",".join(f"{{CidrIpv6={one}}}" for one in found) + "]")
    sources = ",".join(ranges)
    kinds = [f"IpProtocol=udp,FromPort={port},ToPort={port},{sources}" for port in PORTS]
    kinds += [f"IpProtocol=50,{sources}"] if esp else []
    return [
        "GROUP=sg-0123456789abcdef0   # the group of these VMs",
        *(
            f"aws ec2 authorize-security-group-ingress --group-id $GROUP --ip-permissions '{kind}'"
            for kind in kinds
        ),
    ]


def _gcp(networks: tuple[Network, ...], esp: bool) -> list[str]:
    allowed = ",".join([f"udp:{port}" for port in PORTS] + (["esp"] if esp else []))
    lines = ["NETWORK=default   # the network of these VMs"]
    lines += [
        f"gcloud compute firewall-rules create ipsec-{version} --network=$NETWORK"
        f" --direction=INGRESS --allow={allowed} --source-ranges={','.join(found)}"
        for version in BITS
        if (found := _of(networks, version))
    ]
    return [*lines, "# a network of MTU 1460: containers fit with 1354, as the guide says"]


def _azure(networks: tuple[Network, ...], esp: bool) -> list[str]:
    lines = ["RESOURCES=group NSG=name   # of the subnet of these VMs"]
    priority = 200
    for version in BITS:
        if not (found := _of(networks, version)):
            continue
        wanted = [("udp", "Udp", "500 4500")] + ([("esp", "Esp", "'*'")] if esp else [])
        for name, protocol, ports in wanted:
            lines.append(
                f"az network nsg rule create --resource-group $RESOURCES --nsg-name $NSG"
                f" --name ipsec-{name}-{version} --priority {priority} --access Allow"
                f" --direction Inbound --protocol {protocol} --destination-port-ranges {ports}"
                f" --source-address-prefixes {' '.join(found)}"
            )
            priority += 1
    return [*lines, "# containers fit with MTU 1438, as the guide says"]


def _vsphere(networks: tuple[Network, ...], esp: bool) -> list[str]:
    return [
        "# a port group has no firewall of its own; with NSX, a rule of the distributed firewall:",
        f"# sources and destinations: {', '.join(map(str, networks))}",
        "# services: UDP 500, UDP 4500" + (", IP protocol 50" if esp else ""),
        "# action: allow, both directions",
    ]


def _openstack(networks: tuple[Network, ...], esp: bool) -> list[str]:
    lines = ["GROUP=default   # the security group of these VMs"]
    for network in networks:
        start = f"openstack security group rule create --ingress --ethertype IPv{network.version}"
        wanted = [f"--protocol udp --dst-port {port}" for port in PORTS]
        wanted += ["--protocol esp"] if esp else []
        lines += [f"{start} {one} --remote-ip {network} $GROUP" for one in wanted]
    return lines


def _ibm(networks: tuple[Network, ...], esp: bool) -> list[str]:
    lines = ["GROUP=name   # the security group of these VMs"]
    for network in networks:
        start = "ibmcloud is security-group-rule-add $GROUP inbound"
        lines += [
            f"{start} udp --port-min {port} --port-max {port} --remote {network}" for port in PORTS
        ]
        lines += [f"{start} esp --remote {network}"] if esp else []
    if esp:
        lines.append(
            "# a plug-in that does not know esp: set force_udp_encapsulation on every VM, which"
            " needs UDP only"
        )
    return lines


RULES: dict[Platform, Callable[[tuple[Network, ...], bool], list[str]]] = {
    Platform.AWS: _aws,
    Platform.GCP: _gcp,
    Platform.AZURE: _azure,
    Platform.VSPHERE: _vsphere,
    Platform.OPENSTACK: _openstack,
    Platform.IBM: _ibm,
}
