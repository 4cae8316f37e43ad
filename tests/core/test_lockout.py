"""What the config would cut this VM off from is found, weighed and answered with a line."""

from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.guard import Guard
from ipsec_agent.core.lockout import lockout
from ipsec_agent.core.model import Address, Desired, Role
from ipsec_agent.core.problems.guard import unknown_lockout_problems
from ipsec_agent.core.problems.problem import Severity
from ipsec_agent.core.promise import Promise

OWN = (ip_address("10.0.0.5"),)
NOTHING = EssentialAddresses()


def guard(*ipsec: str, clear: tuple[str, ...] = (), enforce: bool = True) -> Guard:
    """A guard of these subnets."""
    return Guard(
        Promise(tuple(map(ip_network, ipsec)), tuple(map(ip_network, clear))), enforce=enforce
    )


@pytest.mark.parametrize(
    ("essential", "gateways", "role", "refused"),
    [
        (NOTHING, ("10.0.0.1",), "default gateway", False),
        (EssentialAddresses(name_servers=(ip_address("10.0.0.1"),)), (), "DNS server", False),
        (EssentialAddresses(dhcp_servers=(ip_address("10.0.0.1"),)), (), "DHCP server", False),
        (EssentialAddresses(directors=(ip_address("10.0.0.1"),)), (), "BOSH director", True),
        (
            EssentialAddresses(ssh_clients=(ip_address("10.0.0.1"),)),
            (),
            "client of an SSH session",
            True,
        ),
    ],
)
def test_each_need(
    essential: EssentialAddresses, gateways: tuple[str, ...], role: str, refused: bool
) -> None:
    """Warned of or refused, with the very line to add, and silent once it is there."""
    needed = tuple(map(ip_address, gateways))

    (finding,) = lockout(guard("10.0.0.0/16"), OWN, needed, essential)

    assert (finding.roles, finding.refused) == ((role,), refused)
    assert finding.hint == "add the line `- 10.0.0.1/32` below no_ipsec_subnets"
    assert f"10.0.0.1 ({role}) is inside the encrypted set" in finding.message
    mended = guard("10.0.0.0/16", clear=("10.0.0.1/32",))
    assert lockout(mended, OWN, needed, essential) == ()


def test_metadata_is_refused() -> None:
    """0.0.0.0/0 takes the metadata service along."""
    (finding,) = lockout(guard("0.0.0.0/0"), OWN, (), NOTHING)

    assert finding.refused
    assert finding.line == "- 169.254.169.254/32"


def test_one_address_in_several_roles_is_one_finding() -> None:
    """The guide's GCP router is gateway, DNS and DHCP server; the worst role decides."""
    router = ip_address("10.0.0.1")
    all_in_one = EssentialAddresses(name_servers=(router, router), dhcp_servers=(router,))

    (finding,) = lockout(guard("10.0.0.0/16"), OWN, (router,), all_in_one)

    assert finding.roles == ("default gateway", "DNS server", "DHCP server")
    assert not finding.refused


def test_refusals_come_first() -> None:
    """What stops the operator is read first."""
    needs = EssentialAddresses(directors=(ip_address("10.0.0.6"),))

    findings = lockout(guard("10.0.0.0/16"), OWN, (ip_address("10.0.0.1"),), needs)

    assert [finding.refused for finding in findings] == [True, False]


def test_a_vm_that_speaks_clear_loses_nothing() -> None:
    """Outside the lists, or in a no-ipsec subnet, or where nothing is enforced."""
    gateway = (ip_address("10.0.0.1"),)

    assert not lockout(guard("10.0.0.0/24"), (ip_address("10.0.1.5"),), gateway, NOTHING)
    assert not lockout(guard("10.0.0.0/24", clear=("10.0.0.5/32",)), OWN, gateway, NOTHING)
    assert not lockout(guard("10.0.0.0/24", enforce=False), OWN, gateway, NOTHING)


def test_an_own_address_is_no_loss() -> None:
    """A name server on the VM itself is reached over lo."""
    needs = EssentialAddresses(name_servers=OWN)

    assert not lockout(guard("10.0.0.0/24"), OWN, (), needs)


def test_ipv6() -> None:
    """The line has the family's prefix length; the other family's addresses do not matter."""
    own = (ip_address("fd00::5"),)
    gateways = (ip_address("fd00::1"), ip_address("10.0.0.1"))

    (finding,) = lockout(
        guard("fd00::/16", "10.0.0.0/16", clear=("fd00:ec2::/32",)), own, gateways, NOTHING
    )

    assert finding.line == "- fd00::1/128"


any_address = st.builds(IPv4Address, st.integers(0, 2**32 - 1)) | st.builds(
    IPv6Address, st.integers(0, 2**128 - 1)
)


@given(st.lists(any_address, max_size=6).map(tuple))
def test_the_lines_suffice(needed: tuple[Address, ...]) -> None:
    """With every line added, nothing is left to complain of, and nothing else was freed."""
    own = (ip_address("10.0.0.5"), ip_address("fd00::5"))
    everything = ("0.0.0.0/0", "::/0")
    findings = lockout(guard(*everything), own, needed, NOTHING)

    lines = tuple(finding.line.removeprefix("- ") for finding in findings)

    assert not lockout(guard(*everything, clear=lines), own, needed, NOTHING)
    assert all(ip_network(line).num_addresses == 1 for line in lines)


def test_a_name_that_nobody_can_judge() -> None:
    """It is information while this VM encrypts; one that speaks clear is cut off from nothing."""
    needs = EssentialAddresses(unresolved=("blob.example",))

    (problem,) = unknown_lockout_problems(needs, Desired(role=Role.ENCRYPT))

    assert (problem.code, problem.severity) == ("lockout-unresolved", Severity.INFO)
    assert problem.subject == "blob.example"
    assert "`getent ahosts blob.example`" in problem.hint
    assert unknown_lockout_problems(needs, Desired(role=Role.CLEAR)) == ()
