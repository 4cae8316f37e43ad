"""The table for a boot whose saved guard does not load: next to nothing passes.

Without the saved table it is not known at boot which addresses are encrypted, so everything
is dropped that is not needed to repair the VM. It bears the name of the guard's table, and so the
agent's first load, and any other, replaces it in one transaction. It is shipped as a file, since
no Python runs at that moment.
"""

from ipsec_agent.core.model import GUARD_TABLE

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
		udp sport 547 udp dport 546 accept comment "DHCPv6"
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
		udp sport 546 udp dport 547 accept comment "DHCPv6"
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
		ipsec in ip saddr >= 0.0.0.0 return comment "in tunnel mode: judged as if clear"
		ipsec in ip6 saddr >= :: return
		ipsec in spnum 1 spi != 0 return comment "nested"
		accept comment "through IPsec"
	}}
	chain closed_ipsec_out {{
		ipsec out ip daddr >= 0.0.0.0 return comment "in tunnel mode: judged as if clear"
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
- SSH passes to this VM's own server only: an SSH client here would be one that speaks clear.
- ESP in UDP does not pass, since it cannot be told from data, as in the guard without forced
  encapsulation; IKE does, and the agent's own table brings the rest.
- On the way out fragments are made after this chain, on the way in they come as they are. Ports are
  looked for in later fragments, too (seen with Linux 6.18), so those are sorted out first.
"""
