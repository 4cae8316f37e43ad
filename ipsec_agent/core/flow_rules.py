"""The guard's second table, for as long as anybody has a flowtable: its text, and where it hooks.

A flowtable forwards a connection's packets between the links' ingress and their transmission: past
prerouting, forward and postrouting, and past IPsec, since it remembers a route from before a
container's packet was translated (nft_flow_offload.c). Table `netdev ipsec_agent` filters on the
hooks that those packets do pass: egress of each guarded link, and its ingress before any
flowtable's.

- It filters as the guard does, but for fragments: no flowtable takes any, the guard has them.
- A packet may still bear the user of the program that gave it to a tap, such as QEMU's: an own
  address's IKE passes if it is root's.
- With forced encapsulation nothing tells ESP in UDP from a container's data between the ports 4500.
- What came out of an SA may be seen at ingress again (esp4_offload); the guard filters it.
- A flowtable that the hardware works (flags offload) shows nothing to the kernel, nor to this.
"""

from collections.abc import Iterable

from ipsec_agent.core.guard import Guard
from ipsec_agent.core.guard_families import FAMILIES, Family
from ipsec_agent.core.guard_table import block, ike_ports, nameable, outside_set
from ipsec_agent.core.model import GUARD_TABLE, DesiredGuard, LinkId
from ipsec_agent.core.observed import Link

_LINKS = "@links@"

_FIRST = -(2**31)
"""The priority before which none is: a flowtable may have any."""

REMOVAL = f"table netdev {GUARD_TABLE}\ndelete table netdev {GUARD_TABLE}\n"


def flow_rules(guard: Guard) -> str:
    """The table for `nft -f`, without the names of the links."""
    families = [FAMILIES[version] for version in guard.families()]
    parts = [
        *(outside_set(guard, family) for family in families),
        _hook("out", f"egress devices = {_LINKS} priority 0", families),
        _hook("in", f"ingress devices = {_LINKS} priority {_FIRST}", families),
        *(_judge(way, it, guard) for way in ("out", "in") for it in families),
    ]
    return f"{REMOVAL}table netdev {GUARD_TABLE} {{\n" + "\n".join(parts) + "}\n"


def wanted_flow_rules(
    guard: DesiredGuard | None, flowtables: Iterable[str], links: Iterable[Link]
) -> str:
    """The table as it should be, "" where none is needed.

    Args:
        flowtables: those of anybody.
        links: all of this VM's.

    A link that nft cannot name is left out, since it would keep the table from all others.
    """
    guarded = _guarded(guard, links)
    names = sorted(f'"{name}"' for name in guarded if nameable(name))
    if guard is None or not names or not any(flowtables):
        return ""
    return guard.flow_rules.replace(_LINKS, f"{{ {', '.join(names)} }}")


def unfiltered(guard: DesiredGuard | None, links: Iterable[Link]) -> tuple[str, ...]:
    """The guarded links that nft cannot name, so that the table is not on them."""
    return tuple(sorted(name for name in _guarded(guard, links) if not nameable(name)))


def _guarded(guard: DesiredGuard | None, links: Iterable[Link]) -> tuple[str, ...]:
    return tuple(
        link.name
        for link in links
        if guard is not None
        and not link.loopback
        and LinkId(link.index, link.name) not in guard.exempt
    )


def _hook(name: str, where: str, families: Iterable[Family]) -> str:
    return block(
        f"chain {name}",
        [
            f"type filter hook {where}; policy accept;",
            *(["meta ipsec exists accept"] if name == "in" else []),
            "meta l4proto esp accept",
            *(f"meta protocol {it.ip} goto {name}{it.version}" for it in families),
        ],
    )


def _judge(way: str, family: Family, guard: Guard) -> str:
    ip, outside = family.ip, f"@outside{family.version}"
    encapsulated, ike = ike_ports()
    senders = ("meta skuid 0 ", "fib saddr type != local ") if way == "out" else ("",)
    return block(
        f"chain {way}{family.version}",
        [
            f"{ip} saddr {outside} accept",
            f"{ip} daddr {outside} accept",
            f"{family.fragment} accept",
            *family.neighbours,
            *(encapsulated if guard.force_encapsulation else []),
            *(sender + rule for sender in senders for rule in ike),
            f"counter {'drop' if guard.enforce else 'accept'}",
        ],
    )
