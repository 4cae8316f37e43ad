"""Ways that no guard can judge are named."""

from ipaddress import ip_address

from msgspec.structs import replace

from ipsec_agent.core.observed import Link, Namespace, Tunnel
from ipsec_agent.core.problems.links import link_problems
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.promise import Promise
from tests.configs import config
from tests.vm import CONTAINER, LINKS, NETWORK, healthy_vm

HERE = 1
"""Number of the VM's own namespace."""

MACVLAN = Link(7, "eth1", 1500, up=True, kind="macvlan", lower=2, namespace=HERE)
CARD = Link(8, "eth2", 1500, up=True)


def test_a_container_with_a_way_of_its_own() -> None:
    """It is named with its links, and the VM stays healthy: it is not its IPsec."""
    there = Namespace(5, (MACVLAN, CARD), name="web, pid 812")
    network = replace(NETWORK, namespaces=(CONTAINER, there))

    found = healthy_vm(network=network).problems()["container-not-guarded"]

    assert found.severity is Severity.WARNING
    assert found.message.startswith(
        "the container web, pid 812 has the macvlan eth1 on eth0, the network card eth2 of its own"
    )
    nameless = replace(NETWORK, namespaces=(CONTAINER, replace(there, name="")))
    found = healthy_vm(network=nameless).problems()["container-not-guarded"]
    assert found.message.startswith("the container in network namespace 5 has")


def test_a_tunnel_to_who_is_not_encrypted() -> None:
    """The far ends that the kernel knows are judged by the lists."""
    remotes = tuple(map(ip_address, ("10.0.0.9", "192.0.2.1", "192.0.2.2")))
    tunnel = Link(11, "flannel.1", 1400, up=True, kind="vxlan", tunnel=Tunnel(None, remotes, 8472))

    vm = healthy_vm(network=replace(NETWORK, links=(*LINKS, tunnel)))
    found = vm.problems()
    (problem,) = (one for code, one in found.items() if code == "overlay-unencrypted")
    assert problem.message == (
        "2 of 3 far ends of the tunnel flannel.1 are outside the encrypted set (192.0.2.1,"
        " 192.0.2.2); the guard drops what it sends there"
    )
    assert problem.hint == "add what is missing to ipsec_subnets, on every VM"
    (clear,) = link_problems(
        Promise.of(vm.config), vm.placement, vm.observed.network, guarded=False
    )
    assert clear.message.endswith("; what it sends there leaves in clear")
    others = replace(tunnel, kind="wireguard")
    found = healthy_vm(network=replace(NETWORK, links=(*LINKS, others))).problems()
    assert found["overlay-unencrypted"].message.endswith("; what it sends there leaves in clear")

    alone = replace(tunnel, tunnel=Tunnel(None, (ip_address("10.0.0.99"),), 8472))
    vm = healthy_vm(config(no_ipsec=("10.0.0.99/32",)), replace(NETWORK, links=(*LINKS, alone)))
    found = vm.problems()
    assert found["overlay-unencrypted"].message.startswith(
        "the far end of the tunnel flannel.1 is outside the encrypted set (10.0.0.99)"
    )
    assert found["overlay-unencrypted"].hint == "take them out of no_ipsec_subnets, on every VM"

    good = replace(tunnel, tunnel=Tunnel(None, remotes[:1], 8472))
    assert healthy_vm(network=replace(NETWORK, links=(*LINKS, good))).problems() == {}
