"""Which links lead to this VM's own containers only, and why. Every other link is guarded.

A link is inside where the kernel's own facts say so, never because of its name or address: what is
new, unknown, made of hardware or stacked on another link is not, nor is what could not be read.
"""

import re
from collections.abc import Iterable, Iterator

from msgspec import Struct

from ipsec_agent.core.model import Address, LinkId
from ipsec_agent.core.observed import Link, Namespace, NetworkFacts
from ipsec_agent.core.promise import Promise

BRIDGE, VETH, DUMMY = "bridge", "veth", "dummy"

OVERLAYS = frozenset(
    {
        *("geneve", "vxlan", "wireguard"),
        *("gre", "gretap", "ip6gre", "ip6gretap", "ip6tnl", "ipip", "sit"),
    }
)
"""Kinds of tunnels that the VM ends itself: what they carry leaves as packets of the VM's own."""

LISTENING = frozenset({"geneve", "vxlan"})
"""Tunnels that take what comes to their UDP port from any sender: the guard filters that port."""

OPEN_ENDED = LISTENING | {"wireguard"}
"""Tunnels of several peers. One of another kind without a far end takes it from each packet."""

STACKED = frozenset({"ipvlan", "ipvtap", "macvlan", "macvtap", "vlan"})
"""Kinds on top of another link, which may have stayed in the namespace where it was made."""

WITHIN = frozenset({"bond", BRIDGE, DUMMY, "ipvlan", "macvlan", "team", "vlan", "vrf"})
"""Kinds that lead out of a container's namespace only by another link in it."""

NARROW = frozenset({DUMMY, VETH, "tun"})
"""Kinds of a bridge's ports that lead to containers and programs, or nowhere."""

NAMEABLE = re.compile(r"[A-Za-z0-9_.@+=~,-]+")
"""Names that nft takes as they are, none of them as a pattern."""


class Inside(Struct, frozen=True):
    """A link that leads to this VM's own containers only.

    Attributes:
        because: why, as the end of a sentence.
        exempt: the guard need not cover it; a bridge without a port carries nothing yet, and is
            guarded until it has its first one and that is inside, too.
    """

    link: Link
    because: str
    exempt: bool = True

    @property
    def key(self) -> LinkId:
        """As the guard knows it."""
        return LinkId(self.link.index, self.link.name)


class Words(Struct, frozen=True):
    """What the operator says of links, by name; `uplinks` are guarded, `inside` are not."""

    uplinks: tuple[str, ...] = ()
    inside: tuple[str, ...] = ()


def is_called(link: Link, names: Iterable[str]) -> bool:
    """Whether one of these names is a link's, be it one of its other ones."""
    return not link_names((link,)).isdisjoint(names)


def link_names(links: Iterable[Link]) -> frozenset[str]:
    """All names of some links."""
    return frozenset(name for link in links for name in (link.name, *link.altnames))


def find_inside(network: NetworkFacts, promise: Promise, words: Words) -> tuple[Inside, ...]:
    """The links that need no judging, in the kernel's order.

    Args:
        network: what the kernel says of links, addresses and namespaces.
        promise: which addresses are encrypted.
    """
    return _Judgement(network, promise, words).found()


class _Judgement:
    def __init__(self, network: NetworkFacts, promise: Promise, words: Words) -> None:
        self._network = network
        self._promise = promise
        self._words = words
        self._links = {link.index: link for link in network.links}
        self._names = {link.name for link in network.links}
        self._namespaces = {one.number: one for one in network.namespaces}
        self._ports: dict[int, list[Link]] = {}
        self._ends: dict[int, list[Link]] = {}
        self._above: dict[int, list[Link]] = {}
        for link in network.links:
            self._ports.setdefault(link.master, []).append(link)
            if link.kind in STACKED and link.namespace is None:
                self._above.setdefault(link.lower, []).append(link)
            if link.kind == VETH and link.namespace is not None:
                self._ends.setdefault(link.namespace, []).append(link)
        self._carrying = frozenset(_stacked_elsewhere(network))

    def found(self) -> tuple[Inside, ...]:
        """Containers and bridges first, as whose addresses are none of the VM's own; then tunnels
        on top of what is left; then bridges again, which such tunnels may be ports of."""
        reasons = self._settled({})
        tunnels = {
            link.index: because
            for link in self._network.links
            if link.index not in reasons
            and link.kind in OVERLAYS
            and (because := self._encrypted_below(link, reasons))
            and self._may(link)
        }
        reasons = self._settled(tunnels)
        return tuple(
            Inside(link, reasons[link.index], exempt=self._carries(link))
            for link in self._network.links
            if link.index in reasons
        )

    def _settled(self, tunnels: dict[int, str]) -> dict[int, str]:
        """By index why a link is inside: all that might be, less what proves to lead elsewhere.

        What leads out takes away what leads to it, until nothing changes.
        """
        words = self._words
        told = {
            link.index: "agent.inside names it"
            for link in self._network.links
            if is_called(link, words.inside)
            and not is_called(link, words.uplinks)
            and self._plain(link)
        }
        candidates = {
            link.index: link
            for link in self._network.links
            if link.kind in {BRIDGE, VETH} and link.index not in told and self._may(link)
        }
        while True:
            inside = {**told, **tunnels, **dict.fromkeys(candidates, "")}
            reasons = {index: self._why(link, inside) for index, link in candidates.items()}
            left = {index: candidates[index] for index, because in reasons.items() if because}
            if len(left) == len(candidates):
                return {**inside, **reasons}
            candidates = left

    def _plain(self, link: Link) -> bool:
        """Whether nft understands its index and its name."""
        # nft reads a number as a name first, where a link is called so.
        return bool(NAMEABLE.fullmatch(link.name)) and str(link.index) not in self._names

    def _may(self, link: Link) -> bool:
        """Whether nothing about a link itself speaks against it."""
        return (
            self._plain(link)
            and not is_called(link, self._words.uplinks)
            and link.index not in self._network.default_links
            and link.index not in self._carrying
        )

    def _carries(self, link: Link) -> bool:
        told = is_called(link, self._words.inside)
        return link.kind != BRIDGE or told or link.index in self._ports

    def _why(self, link: Link, inside: dict[int, str]) -> str:
        """Why a bridge or veth is inside if those are; "" where it is not."""
        if link.kind == BRIDGE:
            return self._why_bridge(link, inside)
        return self._why_veth(link, inside)

    def _why_bridge(self, bridge: Link, inside: dict[int, str]) -> str:
        ports = self._ports.get(bridge.index, [])
        if not all(port.index in inside or port.kind == DUMMY for port in ports):
            return ""
        return "all ports of this bridge are inside" if ports else "this bridge has no port"

    def _why_veth(self, veth: Link, inside: dict[int, str]) -> str:
        if not self._returns(veth, inside):
            return ""
        if veth.namespace is None:
            return self._why_here(veth, inside)
        there = self._namespaces.get(veth.namespace)
        if there is None or not self._leads_back(veth, there, inside):
            return ""
        named = f" ({there.name})" if there.name else ""
        return f"its other end is in a container{named} that has no other way out"

    def _why_here(self, veth: Link, inside: dict[int, str]) -> str:
        """Of a veth whose other end is on this VM, too: what comes in there is filtered."""
        other = self._links.get(veth.lower)
        if (
            other is None
            or other.lower != veth.index
            or other.index in self._carrying
            or is_called(other, self._words.uplinks)
            or not self._returns(other, inside)
        ):
            return ""
        return f"its other end is {other.name} on this VM"

    def _leads_back(self, veth: Link, there: Namespace, inside: dict[int, str]) -> bool:
        """Whether a container has no way but those whose packets this VM filters."""
        ends = {end.lower: end for end in self._ends[there.number]}
        return (
            any(link.index == veth.lower for link in there.links)
            and all(self._returns(end, inside) for end in ends.values())
            and not any(_leads_out(link, there, ends) for link in there.links)
        )

    def _returns(self, end: Link, inside: dict[int, str]) -> bool:
        """Whether what comes in by this end is filtered before it leaves the VM.

        That of a bridge is switched to its other ports, past our IP layer, and so is that of a
        link on top of it (a macvlan may be a port of a bridge with a way out).
        """
        return (not end.master or end.master in inside) and all(
            not above.kind.endswith("tap") and self._returns(above, inside)
            for above in self._above.get(end.index, ())
        )

    def _encrypted_below(self, tunnel: Link, inside: dict[int, str]) -> str:
        """Why the outer packets of a tunnel are filtered; "" where they may not be."""
        how = tunnel.tunnel
        if how is None or tunnel.namespace is not None:
            return ""
        if any(remote.is_multicast for remote in how.remotes):
            return ""
        if not (how.port if tunnel.kind in LISTENING else how.remotes or tunnel.kind in OPEN_ENDED):
            return ""
        sources = self._sources(how.source, {remote.version for remote in how.remotes}, inside)
        if not sources or not all(map(self._promise.encrypted, sources)):
            return ""
        if how.source is not None:
            return f"its packets leave from {how.source}, which is encrypted"
        return "its packets leave from addresses that are all encrypted"

    def _sources(
        self, source: Address | None, versions: set[int], inside: dict[int, str]
    ) -> tuple[Address, ...]:
        """The own addresses that a tunnel's outer packets may bear."""
        own = tuple(
            one.address
            for one in self._network.addresses
            if is_usable(one.address)
            and one.link not in inside
            and (one.link not in self._links or self._links[one.link].kind not in OVERLAYS)
        )
        if source is not None:
            return (source,) if source in own else ()
        return tuple(one for one in own if not versions or one.version in versions)


def is_usable(address: Address) -> bool:
    """Whether an address can be one of this VM's in a deployment."""
    return not (
        address.is_loopback
        or address.is_link_local
        or address.is_multicast
        or address.is_unspecified
    )


class OwnWay(Struct, frozen=True):
    """A link by which a container sends past this VM's IP layer, where no guard can filter."""

    namespace: Namespace
    link: Link
    below: str


def own_ways(network: NetworkFacts, inside: tuple[Inside, ...]) -> tuple[OwnWay, ...]:
    """Links of containers on top of a guarded link of this VM or switched to one, or hardware.

    Args:
        inside: links that lead to containers only, on which a container's link is no way out.
    """
    links = {link.index: link for link in network.links}
    known = {one.link.index for one in inside}
    switched = {
        (end.namespace, end.lower): links[end.master].name
        for end in switched_ends(network.links)
        if end.master not in known
    }
    return tuple(
        OwnWay(there, link, switched.get((there.number, link.index)) or _below(link, links))
        for there in network.namespaces
        for link in there.links
        if (link.up and (there.number, link.index) in switched)
        or (
            may_be_own_way(link, network.number)
            and (not link.kind or link.lower in links.keys() - known)
        )
    )


def _below(link: Link, links: dict[int, Link]) -> str:
    return links[link.lower].name if link.kind else ""


def switched_ends(links: Iterable[Link]) -> tuple[Link, ...]:
    """This VM's ends of veths to containers in a bridge that has a port of another kind, too.

    The bridge switches between its ports past this VM's IP layer.
    """
    every = tuple(links)
    bridges = {link.index for link in every if link.kind == BRIDGE}
    wide = {link.master for link in every if link.kind not in NARROW} & bridges
    return tuple(
        link
        for link in every
        if link.kind == VETH and link.namespace is not None and link.master in wide
    )


def may_be_own_way(link: Link, number: int | None) -> bool:
    """Whether a link of a container is up, and is hardware or on top of one of this VM's.

    Args:
        number: of this VM's namespace.
    """
    return link.up and not link.loopback and (not link.kind or _is_stacked_on_us(link, number))


def _is_stacked_on_us(link: Link, number: int | None) -> bool:
    return link.kind in STACKED and link.namespace is not None and link.namespace == number


def _stacked_elsewhere(network: NetworkFacts) -> Iterator[int]:
    """Links of this VM below one in another namespace: what leads there is unknown."""
    for there in network.namespaces:
        for link in there.links:
            if _is_stacked_on_us(link, network.number):
                yield link.lower


def _leads_out(link: Link, there: Namespace, ends: dict[int, Link]) -> bool:
    """Whether a link in a container leads elsewhere than back to this VM's IP layer.

    Args:
        ends: this VM's ends of the veths to there, by the index of the other end.
    """
    if not link.up or link.loopback:
        return False
    if link.kind == VETH and link.index in ends:
        return link.lower != ends[link.index].index
    within = {one.index for one in there.links}
    if link.kind == VETH:
        return link.namespace is not None or link.lower not in within
    return link.kind not in WITHIN or link.namespace is not None
