"""The guard, links that stay inside the VM, and containers behind it."""

from ipaddress import ip_network

import pytest
from msgspec.structs import replace

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_table import exempt_update
from tests.kernel.guard_lab import (
    A4,
    A6,
    B4,
    B6,
    C4,
    GATE4,
    PLAIN4,
    PLAIN6,
    PROMISE,
    SNAT,
    A,
    B,
    C,
    Capture,
    arrived,
    link,
    load,
    receiver,
    run,
    send_raw,
    send_udp,
    silent,
    table,
)
from tests.lab.namespaces import await_links

pytestmark = [pytest.mark.kernel, pytest.mark.usefixtures("guarded")]

IKE = bytes(4) + b"initiate" + bytes(20)


def test_a_renamed_uplink_is_judged(wire: Capture) -> None:
    """And so is one that is new: only links known to stay inside are not."""
    load(A, more=exempt_update([link(A, "ac0")]))
    run("ip", "link", "set", "a0", "down", ns=A)
    run("ip", "link", "set", "a0", "name", "wan7", "up", ns=A)
    run("ip", "link", "set", "ac0", "down", ns=A)
    run("ip", "link", "set", "ac0", "name", "a0", "up", ns=A)

    assert not send_udp(A, A4, B4)
    assert not wire.between(A4, B4)


def test_an_exempt_link_is_counted() -> None:
    """Between VM and container, both in the ipsec subnets, traffic flows and is reported."""
    run("ip", "addr", "add", "10.77.5.1/32", "dev", "ac0", ns=A)
    run("ip", "addr", "add", "10.77.5.5/32", "dev", "c0", ns=C)
    run("ip", "route", "add", "10.77.5.5/32", "dev", "ac0", ns=A)
    load(A)
    assert not send_udp(A, "10.77.5.1", "10.77.5.5")

    run("nft", "-f", "-", ns=A, text=exempt_update([link(A, "ac0")]))

    with receiver(C, "10.77.5.5") as at_c:
        assert send_udp(A, "10.77.5.1", "10.77.5.5")
        assert arrived(at_c) == b"clear"
    with receiver(A, "10.77.5.1") as at_a:
        assert send_udp(C, "10.77.5.5", "10.77.5.1")
        assert arrived(at_a) == b"clear"
    assert table(A).exempt == (link(A, "ac0"),)
    assert [(link.link, link.packets) for link in table(A).unguarded] == [("ac0", 2)]
    assert not send_udp(A, A4, B4)


def test_containers_of_one_bridge() -> None:
    """With bridge-nf-call-iptables an exempt bridge keeps its containers together."""
    run("ip", "link", "add", "br0", "type", "bridge", ns=A)
    run("ip", "link", "set", "br0", "up", ns=A)
    run("ip", "link", "set", "ac0", "master", "br0", ns=A)
    run("ip", "link", "add", "ad0", "netns", A, "type", "veth", "peer", "b1", "netns", B)
    run("ip", "link", "set", "ad0", "up", "master", "br0", ns=A)
    run("ip", "link", "set", "b1", "up", ns=B)
    run("ip", "addr", "add", "10.77.5.5/24", "dev", "c0", ns=C)
    run("ip", "addr", "add", "10.77.5.6/24", "dev", "b1", ns=B)
    await_links(A, "ac0", "ad0")
    await_links(B, "b1")
    run("sysctl", "-qw", "net.bridge.bridge-nf-call-iptables=1", ns=A)

    load(A)
    with receiver(B, "10.77.5.6") as other:
        send_udp(C, "10.77.5.5", "10.77.5.6")
        assert silent(other)
        run("nft", "-f", "-", ns=A, text=exempt_update([link(A, "br0")]))
        send_udp(C, "10.77.5.5", "10.77.5.6")
        assert arrived(other) == b"clear"


def six_to_the_container() -> None:
    """Give A's container an IPv6 address in no list."""
    run("ip", "addr", "add", "fd88::1/64", "dev", "ac0", "nodad", ns=A)
    run("ip", "addr", "add", "fd88::2/64", "dev", "c0", "nodad", ns=C)
    run("ip", "route", "add", "default", "via", "fd88::1", ns=C)
    run("sysctl", "-qw", "net.ipv6.conf.all.forwarding=1", ns=A)


def test_a_translated_container_is_its_vm(wire: Capture) -> None:
    """Behind SNAT a container's clear packet bears the VM's address, and is dropped."""
    run("nft", "-f", "-", ns=A, text=SNAT)
    load(A, more=exempt_update([link(A, "ac0")]))

    send_udp(C, C4, B4)
    send_udp(C, C4, PLAIN4)

    targets = [(seen.source, seen.target) for seen in wire.udp(1)]
    assert targets == [(A4, PLAIN4)]
    assert [str(peer.address) for peer in table(A).clear_out] == [B4]


def test_a_container_behind_dnat_is_its_vm() -> None:
    """What comes for a container is judged before it bears the container's address."""
    nat = (
        "table ip nat { chain pre { type nat hook prerouting priority -100;"
        f" iifname a0 udp dport 8080 dnat to {C4}:9; }}; }}"
    )
    run("nft", "-f", "-", ns=A, text=nat)

    with receiver(C, C4) as at_c:
        send_udp(B, B4, A4, ports=(0, 8080))
        assert arrived(at_c) == b"clear"
        load(A, more=exempt_update([link(A, "ac0")]))
        send_udp(B, B4, A4, ports=(0, 8080))
        assert silent(at_c)
        send_udp(B, PLAIN4, A4, ports=(0, 8080))
        assert arrived(at_c) == b"clear"
    assert [str(peer.address) for peer in table(A).clear_in] == [B4]


@pytest.mark.parametrize(("version", "own", "target"), [(4, C4, B4), (6, "fd88::2", B6)])
def test_a_mapping_from_before_the_guard(
    wire: Capture, version: int, own: str, target: str
) -> None:
    """A connection that conntrack knows, answered or not, is judged as any other packet."""
    six_to_the_container()
    run("nft", "-f", "-", ns=A, text=f"{SNAT}\n{SNAT.replace('table ip', 'table ip6')}")
    with receiver(B, target) as at_b, receiver(C, own, 7000) as at_c:
        send_udp(C, own, target, b"before", ports=(7000, 9))
        assert arrived(at_b) == b"before"
        answer = {4: (B4, A4), 6: (B6, A6)}[version]
        send_udp(B, *answer, b"answer", ports=(9, 7000))
        assert arrived(at_c) == b"answer"
        load(A, more=exempt_update([link(A, "ac0")]))
        wire.packets()

        send_udp(C, own, target, b"after", ports=(7000, 9))
        send_udp(B, *answer, b"answer", ports=(9, 7000))

        assert silent(at_b)
        assert silent(at_c)
    assert not [seen for seen in wire.packets() if seen.raw.endswith(b"after")]
    assert (table(A).dropped_out, table(A).dropped_in) == (1, 1)


def without_address(link: str = "a0") -> None:
    """Take A's uplink its address; the routes stay, as with a default route that names a link."""
    run("ip", "addr", "flush", "dev", link, ns=A)
    run("ip", "route", "add", "10.77.0.0/16", "dev", link, ns=A)
    run("nft", "-f", "-", ns=A, text=SNAT)


def test_masquerade_without_an_address_on_the_uplink(wire: Capture) -> None:
    """It takes another link's, which is in no list; that is no way out, and leaves no trace."""
    without_address()
    load(A, more=exempt_update([link(A, "ac0")]))
    uplink = link(A, "a0")

    send_udp(C, C4, B4, ports=(4000, 9))

    assert not wire.between(GATE4, B4)
    assert [(str(peer.address), peer.packets) for peer in table(A).misplaced] == [(GATE4, 1)]
    assert (table(A).untranslated, table(A).dropped_out) == ((), 1)

    run("ip", "addr", "add", f"{A4}/16", "dev", "a0", ns=A)
    run("nft", "-f", "-", ns=A, text=exempt_update([link(A, "ac0"), uplink]))
    send_udp(C, C4, B4, ports=(4000, 9))
    assert len(wire.between(A4, B4, 1)) == 1


def test_masquerade_of_ipv6_without_an_address_on_the_uplink(wire: Capture) -> None:
    """The same."""
    six_to_the_container()
    run("nft", "-f", "-", ns=A, text=SNAT.replace("table ip nat", "table ip6 nat"))
    run("ip", "addr", "del", f"{A6}/16", "dev", "a0", ns=A)
    run("ip", "route", "add", "fd77::/16", "dev", "a0", ns=A)
    load(A, more=exempt_update([link(A, "ac0")]))

    send_udp(C, "fd88::2", B6)
    send_udp(C, "fd88::2", PLAIN6)

    targets = [(seen.source, seen.target) for seen in wire.udp(1)]
    assert targets == [("fd88::1", PLAIN6)]
    assert [(str(peer.address), peer.packets) for peer in table(A).misplaced] == [("fd88::1", 1)]


def test_masquerade_to_who_may_have_it_clear(wire: Capture) -> None:
    """Where the destination, or the address that was taken, is in a no-ipsec subnet it passes."""
    without_address()
    load(A, more=exempt_update([link(A, "ac0")]))
    send_udp(C, C4, PLAIN4)
    assert len(wire.between(GATE4, PLAIN4, 1)) == 1

    listed = replace(PROMISE, no_ipsec=(*PROMISE.no_ipsec, ip_network("192.168.77.0/24")))
    load(A, Guard(listed), more=exempt_update([link(A, "ac0")]))
    send_udp(C, C4, B4)
    assert len(wire.between(GATE4, B4, 1)) == 1


def test_translated_to_an_address_in_no_list(wire: Capture) -> None:
    """One that the uplink really has speaks clear, as the lists say; so does this VM itself."""
    load(A, more=exempt_update([link(A, "ac0")]))
    run("ip", "addr", "add", "192.168.78.1/32", "dev", "a0", ns=A)
    assert send_udp(A, "192.168.78.1", B4)
    run("nft", "-f", "-", ns=A, text=SNAT.replace("masquerade", "snat to 192.168.78.1"))
    send_udp(C, C4, B4)

    sources = [seen.source for seen in wire.udp(2)]
    assert sources == ["192.168.78.1"] * 2


def test_untranslated_containers_are_reported(wire: Capture) -> None:
    """An address outside every list goes clear, as promised, and is named with its count."""
    load(A, more=exempt_update([link(A, "ac0")]))

    send_udp(C, C4, B4)

    assert len(wire.between(C4, B4, 1)) == 1
    assert [(str(peer.address), peer.packets) for peer in table(A).untranslated] == [(C4, 1)]


def test_a_router_passes_on_what_is_encrypted(wire: Capture) -> None:
    """A VM between two others lets their ESP and IKE through, and nothing else of theirs."""
    run("ip", "addr", "add", "10.77.5.5/32", "dev", "c0", ns=C)
    run("ip", "route", "add", "10.77.5.5/32", "dev", "ac0", ns=A)
    load(A)

    send_raw(C, "10.77.5.5", B4, 50, bytes(60))
    send_udp(C, "10.77.5.5", B4, IKE, ports=(500, 500))
    send_udp(C, "10.77.5.5", B4, IKE, ports=(4500, 4500))
    send_udp(C, "10.77.5.5", B4)

    assert [seen.protocol for seen in wire.between("10.77.5.5", B4, 3)] == [50, 17, 17]
    assert GATE4 not in {str(peer.address) for peer in table(A).clear_in}
