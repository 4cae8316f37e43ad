"""The table for a VM without a good config: next to nothing passes.

Without a config, or the saved table at boot, it is not known which addresses are encrypted, so
everything is dropped that is not needed to repair the VM. It bears the name of the guard's table,
and so the agent's first load, and any other, replaces it in one transaction. The form for the boot
is shipped as a file, since no Python runs at that moment.
"""

from collections.abc import Iterable, Iterator

from ipsec_agent.core.essential_addresses import EssentialAddresses
from ipsec_agent.core.lockout import METADATA
from ipsec_agent.core.model import GUARD_TABLE, Address

_LAST_IN = '\t\tudp sport 547 udp dport 546 accept comment "DHCPv6"\n'
_LAST_OUT = '\t\tudp sport 546 udp dport 547 accept comment "DHCPv6"\n'

CLOSED = f"""\
# Shipped with ipsec-agent, for a boot whose saved guard does not load: nothing may leave in clear
# or be heard but what it takes to repair this VM. `ipsec-agent guard up`, and the agent when it
# starts, put the right table in its place.
table inet {GUARD_TABLE}
delete table inet {GUARD_TABLE}
table inet {GUARD_TABLE} {{
	chain closed_in {{
		type filter hook prerouting priority -300; policy drop;
		iiftype loopback accept
		meta ipsec exists jump closed_ipsec_in
		meta l4proto esp accept
		jump closed_disguised
		meta l4proto udp ip frag-off & 0x1fff != 0 accept comment "of an IKE message"
		meta l4proto udp frag frag-off != 0 accept comment "of an IKE message"
		ip frag-off & 0x1fff != 0 counter drop
		frag frag-off != 0 counter drop
		jump closed_ike
		jump closed_neighbours
		tcp dport 22 accept comment "the operator's way in"
		udp sport 67 udp dport 68 accept comment "DHCP"
{_LAST_IN}\
		counter drop
	}}
	chain closed_out {{
		type filter hook postrouting priority 300; policy drop;
		oiftype loopback accept
		rt ipsec exists jump closed_ipsec_out
		meta l4proto esp accept
		jump closed_disguised
		ip frag-off & 0x1fff != 0 counter drop
		frag frag-off != 0 counter drop
		meta skuid 0 jump closed_ike
		jump closed_neighbours
		tcp sport 22 accept comment "the operator's way in"
		udp sport 68 udp dport 67 accept comment "DHCP"
{_LAST_OUT}\
		counter drop
	}}
	chain closed_forward {{
		type filter hook forward priority 300; policy drop;
		meta ipsec exists jump closed_ipsec_in
		rt ipsec exists jump closed_ipsec_out
		meta l4proto esp accept
		counter drop
	}}
	chain closed_disguised {{
		ip6 saddr ::ffff:0.0.0.0/96 counter drop
		ip6 daddr ::ffff:0.0.0.0/96 counter drop
		ip option lsrr exists counter drop
		ip option ssrr exists counter drop
		exthdr rt exists counter drop
	}}
	chain closed_ipsec_in {{
		ipsec in ip saddr >= 0.0.0.0 return comment "in tunnel mode: treated as clear"
		ipsec in ip6 saddr >= :: return
		ipsec in spnum 1 spi != 0 return comment "nested"
		accept comment "through IPsec"
	}}
	chain closed_ipsec_out {{
		ipsec out ip daddr >= 0.0.0.0 return comment "in tunnel mode: treated as clear"
		ipsec out ip6 daddr >= :: return
		ipsec out spnum 1 spi != 0 return comment "nested"
		accept comment "through IPsec"
	}}
	chain closed_ike {{
		udp sport 500 udp dport 500 accept
		udp sport 4500 udp dport 4500 @th,64,32 0 accept comment "the non-ESP marker (RFC 3948)"
	}}
	chain closed_neighbours {{
		icmpv6 type {{ 133, 134, 135, 136 }} ip6 hoplimit 255 accept comment "RFC 4861"
		icmpv6 type {{ 130, 131, 132, 143 }} ip6 hoplimit 1 accept comment "MLD, RFC 3810"
	}}
}}
"""
"""Text for `nft -f`.

- Through IPsec is what one SA in transport mode carries, as guard_table.py says. Here nobody knows
  which addresses are encrypted: an operator's own VPN in tunnel mode carries SSH, as all else does.
- ARP is no traffic of this family, and passes.
- SSH passes to this VM's own server only: an SSH client here would be one that speaks clear. So
  would a container's, whose port 22 masquerade keeps: what is forwarded passes through IPsec only.
- ESP in UDP does not pass, since it cannot be told from data, as in the guard without forced
  encapsulation; IKE does, and the agent's own table brings the rest.
- On the way out fragments are made after this chain, on the way in they come as they are. Ports are
  looked for in later fragments, too (seen with Linux 6.18), so those are sorted out first.
"""


def closed_table(essential: EssentialAddresses) -> str:
    """The same table for a VM that runs, which leaves it what it needs besides SSH.

    These are DNS of its name servers, NTP of anybody, and TCP with the metadata service and with
    what its settings name of BOSH: director, message bus and blobstore.
    """
    text = CLOSED
    for last, end in ((_LAST_IN, "s"), (_LAST_OUT, "d")):
        text = text.replace(last, "".join((last, *_needs(essential, end))))
    return text


def _needs(essential: EssentialAddresses, end: str) -> Iterator[str]:
    """Rules for packets whose other end is the source (`s`) or the destination (`d`)."""
    for servers in _by_family(essential.name_servers, end):
        yield _accept(f"{servers} meta l4proto {{ tcp, udp }} th {end}port 53", "DNS")
    # Whoever has port 123 must not reach every port here.
    ports = " udp dport { 123, 32768-65535 }" if end == "s" else ""
    yield _accept(f"udp {end}port 123{ports}", "NTP")
    for hosts in _by_family((*METADATA, *essential.directors), end):
        yield _accept(f"{hosts} meta l4proto tcp", "metadata and BOSH")


def _accept(matches: str, comment: str) -> str:
    return f'\t\t{matches} accept comment "{comment}"\n'


def _by_family(addresses: Iterable[Address], end: str) -> Iterator[str]:
    known = tuple(dict.fromkeys(addresses))
    for version, family in ((4, "ip"), (6, "ip6")):
        listed = ", ".join(str(one) for one in known if one.version == version)
        if listed:
            yield f"{family} {end}addr {{ {listed} }}"
