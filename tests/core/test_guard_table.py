"""The table's text: what an operator reads and nft loads. What it does, tests/kernel shows."""

import re
from ipaddress import IPv4Address, ip_address, ip_network

from hypothesis import given
from msgspec.structs import replace

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import enforces, exempt_update, ruleset
from ipsec_agent.core.model import LinkId
from ipsec_agent.core.promise import Promise
from tests.core.test_guard import CORNER4, promises

GUARD = Guard(Promise((ip_network("10.0.0.0/8"), ip_network("fd00::/8")), ()))


@given(promises)
def test_the_text_holds_what_the_record_judges(promise: Promise) -> None:
    """Read back from the text, the set `outside4` is every address that is not encrypted."""
    guard = Guard(promise)
    found = re.search(r"set outside4 \{[^{]*\{([^}]*)\}", ruleset(guard))
    ranges = (
        [
            tuple(int(IPv4Address(end)) for end in (item.strip().split("-") * 2)[:2])
            for item in found.group(1).split(",")
        ]
        if found
        else []
    )

    for number in range(CORNER4 - 2, CORNER4 + 258):
        address = IPv4Address(number)
        outside = found is None or any(first <= number <= last for first, last in ranges)
        assert outside == (not guard.judges(address, address))


def test_replaces_the_whole_table() -> None:
    """`nft -f` of the file alone works with and without a table there, in one transaction."""
    lines = [line for line in ruleset(GUARD).splitlines() if not line.startswith("#")]

    assert lines[:3] == [
        "table inet ipsec_agent",
        "delete table inet ipsec_agent",
        "table inet ipsec_agent {",
    ]


def test_whether_a_text_drops() -> None:
    """Told by what it does with clear packets; optional mode drops what lies, too."""
    assert enforces(ruleset(GUARD))
    assert not enforces(ruleset(replace(GUARD, enforce=False)))
    assert not enforces("")


def test_the_same_on_every_vm() -> None:
    """Equal lists make an equal text, in whatever order and however nested they are written."""
    one = Promise(
        (ip_network("10.0.0.0/8"), ip_network("10.1.0.0/16")), (ip_network("10.9.0.0/24"),)
    )
    other = Promise((ip_network("10.128.0.0/9"), ip_network("10.0.0.0/9")), one.no_ipsec * 2)

    assert ruleset(Guard(one)) == ruleset(Guard(other))


def test_a_family_without_subnets_has_no_rules() -> None:
    """IPv6 is left alone where only IPv4 is encrypted, but for IPv4 addresses in disguise."""
    text = ruleset(Guard(Promise((ip_network("10.0.0.0/8"),), ())))

    assert "chain in6" not in text
    assert "outside6" not in text
    assert "tunnel_in6" not in text
    # An SA of IPv6 may carry IPv4.
    rules = {line.strip() for line in text.splitlines() if "ip6 " in line and "ipsec " not in line}
    assert rules == {
        f"ip6 {end} ::ffff:0.0.0.0/96 goto disguised_{way}"
        for end in ("saddr", "daddr")
        for way in ("in", "out")
    }


def test_nothing_to_encrypt() -> None:
    """Without subnets the table stands and judges nothing."""
    text = ruleset(Guard(Promise((), ())))

    assert "drop" not in text
    assert "chain out {" in text


def test_optional_has_no_drop() -> None:
    """It counts and accepts what is clear; what a peer lies about is dropped all the same."""
    text = ruleset(replace(GUARD, enforce=False)).split("\n", 1)[1]

    assert [line for line in text.splitlines() if "drop" in line and "transport" not in line] == []
    assert "counter accept" in text


def test_esp_in_udp_only_where_it_is_forced() -> None:
    """Else nothing but IKE passes on port 4500."""
    assert "ESP in UDP" not in ruleset(GUARD)
    assert "ESP in UDP" in ruleset(replace(GUARD, force_encapsulation=True))


def test_links_are_exempt_by_index_and_name() -> None:
    """The update empties the set first; with no link it stays empty."""
    assert exempt_update([LinkId(3, "docker0"), LinkId(9, "veth.1")]).splitlines() == [
        "flush set inet ipsec_agent exempt",
        'add element inet ipsec_agent exempt { 3 . "docker0", 9 . "veth.1" }',
        "flush set inet ipsec_agent overlay_ports",
    ]
    assert exempt_update([], [4789, 8472]).splitlines() == [
        "flush set inet ipsec_agent exempt",
        "flush set inet ipsec_agent overlay_ports",
        "add element inet ipsec_agent overlay_ports { 4789, 8472 }",
    ]


def test_a_single_address_is_no_range() -> None:
    """nft refuses a range from an address to itself."""
    promise = Promise((ip_network("10.0.0.0/8"),), (ip_network("10.9.9.9/32"),))

    assert re.search(r"\t10\.9\.9\.9,\n", ruleset(Guard(promise)))
    assert not Guard(promise).judges(ip_address("10.9.9.9"), ip_address("10.0.0.1"))
