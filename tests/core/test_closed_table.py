"""The table for a boot whose saved guard does not load: shipped as it is here."""

from ipaddress import ip_address
from pathlib import Path

from ipsec_agent.core.closed_table import CLOSED, closed_table
from ipsec_agent.core.essential_addresses import EssentialAddresses

SHIPPED = Path(__file__).parents[2] / "systemd" / "closed.nft"


def test_the_shipped_file_is_this_text() -> None:
    """The unit loads the file with no Python; `guard status` knows it by the text."""
    assert CLOSED == SHIPPED.read_text()


def test_it_replaces_and_is_replaced() -> None:
    """It begins as the guard's own table does, and so either takes the other's place whole."""
    lines = [line for line in CLOSED.splitlines() if not line.startswith("#")]

    assert lines[:3] == [
        "table inet ipsec_agent",
        "delete table inet ipsec_agent",
        "table inet ipsec_agent {",
    ]


def test_for_a_vm_that_runs() -> None:
    """It only adds: DNS with its own servers, NTP, the metadata service and BOSH, both ways."""
    needs = EssentialAddresses(
        name_servers=(ip_address("10.0.0.2"),),
        directors=(ip_address("10.0.0.6"), ip_address("fd00::6"), ip_address("10.0.0.6")),
    )

    before, lines = CLOSED.splitlines(), closed_table(needs).splitlines()

    assert [line for line in lines if line in before] == before
    bosh = ("ip {}addr {{ 169.254.169.254, 10.0.0.6 }}", "ip6 {}addr {{ fd00:ec2::254, fd00::6 }}")
    assert [line.strip() for line in lines if line not in before] == [
        rule
        for end, more in (("s", " udp dport { 123, 32768-65535 }"), ("d", ""))
        for rule in (
            f"ip {end}addr {{ 10.0.0.2 }} meta l4proto {{ tcp, udp }} th {end}port 53"
            ' accept comment "DNS"',
            f'udp {end}port 123{more} accept comment "NTP"',
            *(
                f'{hosts.format(end)} meta l4proto tcp accept comment "metadata and BOSH"'
                for hosts in bosh
            ),
        )
    ]
