"""Addresses and subnets in forms that no packet, link or kernel has, and texts that are none."""

import argparse
from datetime import UTC, datetime
from typing import Any

import pytest

from ipsec_agent.core.manifest.addresses import no_subnet
from ipsec_agent.core.manifest.parser import parse
from ipsec_agent.verbs.argument_types import address
from tests.certificates import make_ca, make_leaf
from tests.manifests import manifest

CA = make_ca()
LEAF = make_leaf(CA)


def text(lists: dict[str, list[str]]) -> str:
    """A manifest that is accepted but for these lists."""
    changes: dict[str, Any] = {"leaf": LEAF, "cas": [CA], "form": "rendered", **lists}
    return manifest(**changes)


def said(agent: str = "", lists: dict[str, list[str]] | None = None) -> str:
    """The complaint about a manifest, which is refused for nothing else."""
    written = text(lists or {}) + agent
    parsed = parse(written, file="f", now=datetime.now(UTC))
    assert parsed.config is None
    (complaint,) = parsed.complaints
    return str(complaint)


@pytest.mark.parametrize(
    "written", ["fd00::1%eth0", "fd00::%eth0/64", "fe80::1%eth0/128", "fd00::1%a b;{}/128"]
)
@pytest.mark.parametrize("key", ["ipsec_subnets", "no_ipsec_subnets"])
def test_a_subnet_with_a_link(key: str, written: str) -> None:
    """The name of a link is refused: it would reach nft, which takes none, as it is written."""
    expected = f"{key}[0]: '{written}' has the name of a link; remove `%` and what is behind it"
    assert said(lists={key: [written]}).endswith(expected)


@pytest.mark.parametrize(
    ("written", "right"),
    [
        ("::10.0.0.1/128", "10.0.0.1/32"),
        ("::a00:0/104", "10.0.0.0/8"),
        ("::ffff:10.0.0.1", "10.0.0.1/32"),
    ],
)
@pytest.mark.parametrize("key", ["ipsec_subnets", "no_ipsec_subnets"])
def test_a_subnet_of_ipv4_in_ipv6(key: str, written: str, right: str) -> None:
    """Both ways in which IPv6 writes IPv4 are refused: the IPv4 address would not be meant."""
    expected = f"{key}[0]: {written} is IPv4 written as IPv6; write {right}"
    assert said(lists={key: [written]}).endswith(expected)


@pytest.mark.parametrize("written", ["::1/128", "::/0", "64:ff9b::10.0.0.1/128", "::/8"])
def test_a_subnet_of_ipv6(written: str) -> None:
    """What packets do have is no IPv4."""
    whole = text({"no_ipsec_subnets": [written]})
    assert parse(whole, file="f", now=datetime.now(UTC)).complaints == ()


@pytest.mark.parametrize(
    ("agent", "expected"),
    [
        (
            "address: ::ffff:10.9.0.1",
            "agent.address: '::ffff:10.9.0.1' is IPv4 written as IPv6; write address: 10.9.0.1",
        ),
        ("address: fd00::1%eth0", "agent.address: 'fd00::1%eth0' is not an IP address; write, "),
        ("address: 255.255.255.255", "255.255.255.255 cannot be the address of a VM; write, "),
        ("address: fe80::1", "agent.address: fe80::1 cannot be the address of a VM; write, "),
        ("address: ff02::1", "agent.address: ff02::1 cannot be the address of a VM; write, "),
        (
            'metrics: "[::ffff:10.9.0.1]:9815"',
            "agent.metrics: the address is IPv4 written as IPv6; write metrics: 10.9.0.1:9815",
        ),
    ],
)
def test_an_address_of_the_agent(agent: str, expected: str) -> None:
    """No link of the VM has such an address."""
    assert expected in said(agent=f"agent:\n  {agent}\n")


@pytest.mark.parametrize(
    ("written", "message", "remedy"),
    [
        ("10.0.0.0/24,10.1.0.0/24", "is more than one value", "on a line of its own"),
        ("10.0.0.0/24; 10.1.0.0/24", "is more than one value", "on a line of its own"),
        ("10.0.0.1-10.0.0.9", "is a range", "write the subnets"),
        ("fd00::1 - fd00::9", "is a range", "write the subnets"),
        ("10/8", "does not have all four numbers", "such as 10.0.0.0/8"),
        ("10.0.1/24", "does not have all four numbers", "such as 10.0.0.0/8"),
        ("010.0.0.0/8", "has a number that begins with 0", "remove the 0"),
        ("10.0.0.01", "has a number that begins with 0", "remove the 0"),
        ("10.0.0.0/33", "is not a subnet", "of at most 32"),
        ("fd00::/129", "is not a subnet", "fd00::/64"),
        ("a.example/24", "is not a subnet", "10.0.0.0/20"),
        ("1" * 100_000, "is not a subnet", "10.0.0.0/20"),
    ],
)
def test_why_a_text_is_no_subnet(written: str, message: str, remedy: str) -> None:
    """The cause is named, and what to type."""
    found = no_subnet(written)
    assert message in found[0]
    assert remedy in found[1]


def test_an_address_of_an_argument() -> None:
    """A peer is found by its IPv4 address in either form; a link's name is refused."""
    assert address("::ffff:10.0.0.1") == address("10.0.0.1") == "10.0.0.1"
    assert address("FD00::1") == "fd00::1"
    with pytest.raises(argparse.ArgumentTypeError, match="is not an IP address"):
        address("fd00::1%eth0")
