"""The guard's nftables table as text, and why the text is as it is.

A packet whose source and destination are both encrypted addresses is filtered. It passes as
ESP, through IPsec, as IKE or as neighbour discovery; anything else is counted and dropped.

- What a VM that has lost its IPv6 address sends from its link-local one is filtered on the way out.
- The sets `outside` hold every address that is *not* encrypted, and what is found there passes.
  A set of intervals becomes visible a little after the rules that use it (measured: 0.7 us; with a
  set of the encrypted addresses about one packet in clear per replacement under a flood of 2
  million a second). This way round that moment drops: none in 1,300 replacements.
- Count and drop are two rules: a full set makes `update` end its rule.
- Out is filtered after SNAT and in before DNAT, where a container bears its VM's address.
- A source in no list is free to speak clear where it is an address of the link that the packet
  leaves by. Any other own address is one that a program has chosen (bind, IP_PKTINFO, ::1), or that
  masquerade takes while the uplink has none (inet_select_addr in devinet.c of the kernel), and
  IPV6_FREEBIND lets a program send from one that no link has. What leaves so is clear traffic, too,
  unless it is an own address in a no-ipsec subnet (the sets `listed`). Dropped before conntrack has
  confirmed it, it leaves no mapping behind that would outlive the uplink's return. A socket tells
  what was sent here; the input link does not, since a bridge's packets have none (br_netfilter).
- A dual-stack socket takes ::ffff:a.b.c.d in an IPv6 header for the IPv4 peer, and a source route
  or a routing header names the real destination where no rule looks. Both are dropped, between
  any addresses, so that a VM cannot be a node of segment routing, too.
- Later fragments have no ports. On the way in those of UDP pass: without its first fragment, which
  is judged, a datagram is never put together, and large ESP-in-UDP and IKE need them. Those of any
  other protocol are filtered by their addresses. On the way out none pass: what this VM sends is
  judged whole and fragmented after that (ip_output.c, ip_finish_output), so that a later fragment
  there is one that a container sent in clear.
- `exempt` holds the links that are *not* guarded: a new one is guarded until an agent says
  otherwise. It names a link by index and name, both of which must be the packet's link's: a renamed
  one is guarded at once, and so is one that was moved in from another namespace and took the index
  of one that is gone. (nft 1.0.6 takes no link's kind in a set; a group moves in with its link.)
- vxlan and geneve do not check who sent a datagram. Those in `exempt` are not guarded because their
  outer packets are, so that on their ports (`overlay_ports`) only what went through IPsec reaches
  this VM or an encrypted address, whichever link it takes and whatever its source, and nothing
  leaves to an address that is not encrypted. No tunnel sends to itself over loopback. Nor does an
  ordinary user's datagram leave, through IPsec or not. A tunnel's packets bear the inner sender's
  socket (seen, Linux 6.18), and a mark, which no ordinary user can set, that tells them apart.
- IKE of this VM is sent by root: another user's datagrams on its ports do not pass, and what has no
  socket here, but an own address, is a container's. IKE of others passes where this VM routes, not
  where it comes by a link that leads to containers only.
- Nothing in a packet tells ESP in UDP from data between the ports 4500. On the way out the kernel
  shows a packet to the chain twice, before and after it was encrypted, and the first time leaves a
  mark for the second, which no ordinary user can set. On the way in nothing can tell.
- All VMs share one certificate, so a peer may negotiate an SA for what is meant for others. Between
  encrypted addresses only what goes through one SA in transport mode passes: that leads to no other
  host than the packet's, and the kernel compares what comes out of it with the SA's own selector
  (xfrm_policy.c, __xfrm_policy_check). nft knows the addresses of an SA in tunnel, BEET and IPTFS
  mode only (nft_xfrm.c, xfrm_state_addr_ok), in the family of its outer header: that any is there
  tells such an SA from one in transport mode. Several SAs for one packet are nested.
"""

import hashlib
from collections.abc import Iterable, Sequence

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_families import FAMILIES, Family
from ipsec_agent.core.model import GUARD_TABLE, LinkId

PEERS_COUNTED = 4096
"""Addresses that each counting set holds; further ones are dropped all the same."""

LINKS_COUNTED = 256

ENCRYPTED_MARK = 0x40000000
"""The bit of the packet mark that says "IPsec has it" until the packet is seen encrypted."""

INNER_MARK = 0x20000000
"""The bit of the packet mark that says "by an exempt link": a tunnel's outer packet
keeps it, and the socket of who sent the inner one."""

MAPPED = "::ffff:0.0.0.0/96"
"""IPv4 addresses in an IPv6 header (RFC 4291, 2.5.5.2)."""

_SYN = "tcp flags & (fin | syn | rst | ack) == syn"
_PORTS = "udp sport 4500 udp dport 4500"

COUNTED_FOR = 3600
"""Seconds after its last packet until an address is forgotten and makes room. A full set hides who
comes next; that packets are dropped is told all the same (problems/guard_drops.py)."""

_ENDS = ("saddr", "daddr")


def ruleset(guard: Guard) -> str:
    """The table as a file for `nft -f`, which replaces all of it in one transaction.

    It covers every link but lo, as is right at boot; `exempt_update` narrows it.
    """
    families = [FAMILIES[version] for version in guard.families()]
    parts = [
        block("set exempt", ["type iface_index . ifname"]),
        block("set overlay_ports", ["type inet_service"]),
        _counting("unguarded_in", "iface_index", LINKS_COUNTED),
        _counting("unguarded_out", "iface_index", LINKS_COUNTED),
        *(_counting(f"tunnel{version}", f"ipv{version}_addr", PEERS_COUNTED) for version in (4, 6)),
        *(part for family in families for part in _sets(guard, family)),
        *(_disguised(name, guard.enforce) for name in ("out", "in") if families),
        _hook("out", "postrouting priority 300", families, marks=guard.force_encapsulation),
        _hook("in", "prerouting priority -300", families),
        *(part for name in ("out", "in") for part in _ipsec(name, families)),
        *_ike(guard.force_encapsulation),
        *(part for family in families for part in _judge(family, guard.enforce)),
    ]
    return (
        "# Made by ipsec-agent. Drops what should travel as IPsec between VMs and does not.\n"
        f"table inet {GUARD_TABLE}\n"
        f"delete table inet {GUARD_TABLE}\n"
        f"table inet {GUARD_TABLE} {{\n" + "\n".join(parts) + "}\n"
    )


def enforces(text: str) -> bool:
    """Whether a table's text drops what is clear, rather than only count it."""
    return _judged(enforce=True) in text


def mark(text: str) -> str:
    """Digest of a table's text, by which a loaded table is known."""
    return hashlib.sha256(text.encode()).hexdigest()


def nameable(link: str) -> bool:
    """Whether nft takes a link's name as it is.

    The kernel allows all but blanks, `/` and `:` (dev_valid_name). To nft a quote ends a name, and
    an asterisk at its end means every link that begins so (scanner.l; expr_evaluate_string).
    """
    return '"' not in link and not link.endswith("*")


def exempt_update(exempt: Iterable[LinkId], ports: Iterable[int] = ()) -> str:
    """The text that sets the exempt links, and leaves rules and counters alone.

    Those that nft cannot name are left out, and so are guarded.

    Args:
        ports: UDP ports of the tunnels among the links.
    """
    links = (f'{link.index} . "{link.name}"' for link in exempt if nameable(link.name))
    return _refilled("exempt", links) + _refilled("overlay_ports", map(str, ports))


def _refilled(name: str, values: Iterable[str]) -> str:
    elements = ", ".join(values)
    add = f"add element inet {GUARD_TABLE} {name} {{ {elements} }}\n" if elements else ""
    return f"flush set inet {GUARD_TABLE} {name}\n{add}"


def _sets(guard: Guard, family: Family) -> Iterable[str]:
    kind = f"ipv{family.version}_addr"
    yield outside_set(guard, family)
    no_ipsec = _elements(map(str, guard.no_ipsec(family.version)))
    yield block(f"set listed{family.version}", [f"type {kind}", "flags interval", *no_ipsec])
    for name in ("clear_in", "clear_out", "misplaced", "untranslated"):
        yield _counting(f"{name}{family.version}", kind, PEERS_COUNTED)


def outside_set(guard: Guard, family: Family) -> str:
    """The set of the addresses that are not encrypted."""
    version, address = family.version, family.address
    ranges = (
        f"{address(first)}-{address(last)}" if first < last else str(address(first))
        for first, last in guard.outside(version)
    )
    kind = f"type ipv{version}_addr"
    return block(f"set outside{version}", [kind, "flags interval", *_elements(ranges)])


def _elements(values: Iterable[str]) -> list[str]:
    joined = ",\n\t\t\t".join(values)
    return [f"elements = {{ {joined} }}"] if joined else []


def _counting(name: str, kind: str, size: int) -> str:
    return block(
        f"set {name}",
        [
            f"type {kind}",
            f"size {size}",
            "flags dynamic,timeout",
            f"timeout {COUNTED_FOR}s",
            "counter",
        ],
    )


def _hook(name: str, where: str, families: Sequence[Family], *, marks: bool = False) -> str:
    loopback, ipsec = {
        "out": ("oiftype loopback", "rt ipsec exists"),
        "in": ("iiftype loopback", "meta ipsec exists"),
    }[name]
    mark = f" meta mark set meta mark | {ENCRYPTED_MARK:#x}" if marks else ""
    return block(
        f"chain {name}",
        [
            f"type filter hook {where}; policy accept;",
            *(_overlay_senders(families, loopback) if name == "out" else ()),
            f"{loopback} accept",
            f"{ipsec}{mark} goto ipsec_{name}",
            "meta l4proto esp accept",
            *(f"ip6 {end} {MAPPED} goto disguised_{name}" for end in _ENDS if families),
            # Before any `ip saddr`: a match on the other family's header is not evaluated.
            *(f"meta nfproto ipv{it.version} goto {name}{it.version}" for it in families),
        ],
    )


def _disguised(direction: str, enforce: bool) -> str:
    goal = f"disguised_{direction}"
    what = f'counter {_verdict(enforce)} comment "an IPv4-mapped address or a source route"'
    # The protocol is known where all headers are there.
    whole = ["meta l4proto >= 0 return", f"goto {goal}"]
    return block(f"chain {goal}", [what]) + block(f"chain beginnings_{direction}", whole)


def _ipsec(name: str, families: Sequence[Family]) -> Iterable[str]:
    """What goes through SAs; in another mode than transport an SA's outer addresses are there."""
    sa, peer = f"ipsec {name}", {"out": "daddr", "in": "saddr"}[name]
    yield block(
        f"chain ipsec_{name}",
        [
            f"{sa} ip {peer} >= 0.0.0.0 goto tunnel_{name}",
            f"{sa} ip6 {peer} >= :: goto tunnel_{name}",
            f"{sa} spnum 1 spi != 0 goto tunnel_{name}",
            'accept comment "through IPsec"',
        ],
    )
    yield block(
        f"chain tunnel_{name}",
        [
            *(f"ip6 {end} {MAPPED} goto disguised_{name}" for end in _ENDS if families),
            *(f"meta nfproto ipv{it.version} goto tunnel_{name}{it.version}" for it in families),
            "accept",
        ],
    )
    for it in families:
        outside, routed = f"@outside{it.version}", it.routed if name == "out" else ""
        yield block(
            f"chain tunnel_{name}{it.version}",
            [
                f"{it.ip} saddr {outside} {routed}accept",
                f"{it.ip} daddr {outside} accept",
                # The outer SA's peer, which the inner header does not tell, and its SA behind one
                # in transport mode.
                *(
                    f"update @tunnel{version} {{ {sa} spnum {place} {ip} {peer} }}"
                    for place in (0, 1)
                    for version, ip in ((4, "ip"), (6, "ip6"))
                ),
                'counter drop comment "between encrypted addresses, and not in transport mode"',
            ],
        )


def ike_ports() -> tuple[list[str], list[str]]:
    """Rules that pass what forced encapsulation needs, and those that pass IKE."""
    return (
        [
            f'{_PORTS} @th,64,32 != 0 accept comment "ESP in UDP"',
            f'{_PORTS} udp length 9 @th,64,8 0xff accept comment "keeps a NAT mapping alive"',
        ],
        [
            "udp sport 500 udp dport 500 accept",
            f'{_PORTS} @th,64,32 0 accept comment "IKE behind the non-ESP marker (RFC 3948)"',
        ],
    )


def _ike(force_encapsulation: bool) -> Iterable[str]:
    encapsulated, ike = ike_ports()
    own = (
        f"{_PORTS} meta mark & {ENCRYPTED_MARK:#x} != 0"
        f" meta mark set meta mark & {ENCRYPTED_MARK ^ 0xFFFFFFFF:#x}"
        ' accept comment "ESP in UDP of this VM"'
    )
    yield block("chain ike_in", [*(encapsulated if force_encapsulation else []), *ike])
    yield block(
        "chain ike_out",
        [
            # An encapsulated packet bears the user of the program that sent it, hence the order.
            *([own] if force_encapsulation else []),
            "meta skuid 0 goto ike_in",
            # What was not sent from here has no user: no match, and on to the next rule.
            "meta skuid != 0 return",
            "fib saddr type local return",
            # An address of a link in a VRF is in its table, and what comes by it by the VRF's link.
            "fib saddr . oif type local return",
            "iif . iifname @exempt return",
            "goto ike_in",
        ],
    )


def _judge(family: Family, enforce: bool) -> Iterable[str]:
    version, ip, later = family.version, family.ip, family.later
    outside, overlay = f"@outside{version}", "udp dport @overlay_ports"
    elsewhere = f"{ip} daddr {outside} accept"
    routes_out, routes_in = ([it.format(w) for it in family.source_routes] for w in ("out", "in"))
    yield from _unlisted(family, enforce)
    yield _clear(f"clear_out{version}", "out", f"{ip} daddr", enforce)
    yield _clear(f"clear_in{version}", "in", f"{ip} saddr", enforce)
    yield _overlay(f"out{version}", f"{ip} daddr", enforce)
    yield _overlay(f"in{version}", f"{ip} saddr", enforce)
    yield block(
        f"chain out{version}",
        [
            *routes_out,
            f"{overlay} {ip} saddr != {outside} {ip} daddr {outside} goto overlay_out{version}",
            f"{ip} saddr {outside} {ip} daddr != {outside} jump unlisted{version}",
            f"{ip} saddr {outside} {family.routed}accept",
            elsewhere,
            f"{later} goto clear_out{version}",
            "jump ike_out",
            *family.neighbours,
            f"goto clear_out{version}",
        ],
    )
    yield block(
        f"chain in{version}",
        [
            *routes_in,
            f"{overlay} {ip} daddr != {outside} goto overlay_in{version}",
            # Also multicast and broadcast, which a tunnel's socket receives, too.
            f"{overlay} fib daddr type != unicast goto overlay_in{version}",
            f"{ip} saddr {outside} accept",
            elsewhere,
            f"meta l4proto udp {later} accept",
            "jump ike_in",
            *family.neighbours,
            f"goto clear_in{version}",
        ],
    )


def _unlisted(family: Family, enforce: bool) -> Iterable[str]:
    """What leaves from an address in no list to one that is encrypted."""
    version, ip = family.version, family.ip
    own = f"{ip} saddr != @listed{version} fib saddr . oif type != local"
    misplaced = f"goto misplaced{version}"
    untranslated = f"update @untranslated{version} {{ {ip} saddr }}"
    yield _clear(f"misplaced{version}", "out", f"{ip} saddr", enforce)
    yield block(
        f"chain unlisted{version}",
        [
            f"fib saddr type local {own} {misplaced}",
            f"meta skuid >= 0 fib saddr type != local {misplaced}",
            # A socket of AF_SMC connects by one of the kernel's own, which has no user.
            f'{_SYN} fib saddr type != local iif 0 meta oifkind != "bridge" {misplaced}',
            f"{family.routed}oif . oifname != @exempt {untranslated}",
        ],
    )


def _clear(name: str, direction: str, peer: str, enforce: bool) -> str:
    link = {"out": "oif", "in": "iif"}[direction]
    return block(
        f"chain {name}",
        [
            f"{link} . {link}name @exempt update @unguarded_{direction} {{ {link} }}",
            f"{link} . {link}name @exempt accept",
            f"update @{name} {{ {peer} }}",
            _judged(enforce=enforce),
        ],
    )


def _judged(*, enforce: bool) -> str:
    return f'counter {_verdict(enforce)} comment "clear between encrypted addresses"'


def _overlay_senders(families: Sequence[Family], loopback: str) -> Iterable[str]:
    """What programs send to a tunnel's port, here or, perhaps through IPsec, at a peer."""
    if families:
        yield (f"meta skuid != 0 oif . oifname @exempt meta mark set meta mark | {INNER_MARK:#x}")
    for sender in (loopback, f"meta skuid != 0 meta mark & {INNER_MARK:#x} == 0"):
        for it in families:
            yield (
                f"udp dport @overlay_ports {sender} meta nfproto ipv{it.version}"
                f" goto overlay_out{it.version}"
            )


def _overlay(way: str, peer: str, enforce: bool) -> str:
    return block(
        f"chain overlay_{way}",
        [
            f"update @clear_{way} {{ {peer} }}",
            f'counter {_verdict(enforce)} comment "clear on the port of a tunnel"',
        ],
    )


def _verdict(enforce: bool) -> str:
    return "drop" if enforce else "accept"


def block(head: str, lines: Iterable[str]) -> str:
    """A set or a chain."""
    body = "".join(f"\t\t{line}\n" for line in lines)
    return f"\t{head} {{\n{body}\t}}\n"
