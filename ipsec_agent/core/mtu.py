"""Bytes that ESP costs, the largest packet that fits into a link, and links whose packets do not.

RFC 4303: SPI and sequence number (8), IV, payload, padding to the alignment, pad length and next
header (2), ICV; in UDP (RFC 3948) 8 more. In transport mode the IP header stays in front. What a
suite takes is in RFC 4106 (GCM), 4309 (CCM), 7634 (ChaCha20), 3602 (AES-CBC), 3686 (CTR), 2404 and
4868 (HMAC). Checked against tcpdump: AES-GCM-16 costs 34 to 37 bytes.
"""

import re
from collections.abc import Iterable, Iterator
from shlex import quote

from msgspec import Struct

from ipsec_agent.core.config import DEFAULT_ESP, Config
from ipsec_agent.core.coverage import families
from ipsec_agent.core.model import Desired
from ipsec_agent.core.observed import Link, NetworkFacts

IP_HEADER = {4: 20, 6: 40}
ESP_HEADER = 8
TRAILER = 2
UDP_HEADER = 8


class Suite(Struct, frozen=True):
    """What ESP adds, in bytes.

    Attributes:
        iv: initialisation vector in each packet.
        alignment: of the encrypted part: the cipher's block, at least 4.
        icv: integrity check value.
    """

    iv: int
    alignment: int
    icv: int


class Carriage(Struct, frozen=True):
    """How the packets of a VM travel.

    Attributes:
        suites: those that a peer may choose.
        versions: of IP, 4 and 6.
        encapsulated: as ESP in UDP.
    """

    suites: tuple[Suite, ...]
    versions: tuple[int, ...] = (4,)
    encapsulated: bool = False


def largest(mtu: int, suite: Suite, *, version: int = 4, encapsulated: bool = False) -> int:
    """The largest IP packet whose ESP fits into an MTU, in bytes, 0 where none does."""
    header = IP_HEADER[version]
    udp = UDP_HEADER if encapsulated else 0
    room = mtu - header - udp - ESP_HEADER - suite.iv - suite.icv
    inner = room // suite.alignment * suite.alignment - TRAILER
    return header + inner if inner >= 0 else 0


def required(mtu: int, carriage: Carriage) -> int:
    """The largest packet that fits into a link of this MTU, whatever is negotiated."""
    return min(
        largest(mtu, suite, version=version, encapsulated=carriage.encapsulated)
        for suite in carriage.suites
        for version in carriage.versions
    )


# --- suites -----------------------------------------------------------------------------------

AEAD = re.compile(r"(?:aes|camellia)\d+(?:gcm|ccm)(\d*)|(chacha20poly1305)(?:compat)?")
AEAD_IV, AEAD_ALIGNMENT, AEAD_ICV = 8, 4, 16
CIPHER = re.compile(r"(3des)|(?:aes|camellia)\d*(ctr)?")
INTEGRITY = {
    "sha1_160": 20,
    "sha256": 16,
    "sha2_256": 16,
    "sha384": 24,
    "sha2_384": 24,
    "sha512": 32,
    "sha2_512": 32,
    "md5_128": 16,
}
"""Bytes of the ICV; all others that are known in proposals.py are cut to 96 bits."""

CUT = re.compile(r"sha|sha1|sha2?_?256_96|aesxcbc|aescmac|camelliaxcbc|md5")
CUT_ICV = 12


def suites(proposals: Iterable[str]) -> tuple[Suite, ...]:
    """What each of the ESP proposals costs; of several algorithms in one, the costliest."""
    return tuple(dict.fromkeys(map(_suite, tuple(proposals) or DEFAULT_ESP)))


def _suite(proposal: str) -> Suite:
    parts = [part for word in proposal.split("-") for part in _costs(word)]
    return Suite(
        max((part.iv for part in parts), default=AEAD_IV),
        max((part.alignment for part in parts), default=AEAD_ALIGNMENT),
        max((part.icv for part in parts), default=AEAD_ICV),
    )


def _costs(word: str) -> Iterator[Suite]:
    """What an algorithm adds; nothing for a key exchange and for sequence numbers."""
    if found := AEAD.fullmatch(word):
        bits_or_bytes = int(found[1] or AEAD_ICV)
        yield Suite(
            AEAD_IV,
            AEAD_ALIGNMENT,
            bits_or_bytes if bits_or_bytes <= AEAD_ICV else bits_or_bytes // 8,
        )
    elif found := CIPHER.fullmatch(word):
        yield Suite(8, 8, 0) if found[1] else Suite(8, 4, 0) if found[2] else Suite(16, 16, 0)
    elif word in INTEGRITY:
        yield Suite(0, 0, INTEGRITY[word])
    elif CUT.fullmatch(word):
        yield Suite(0, 0, CUT_ICV)


# --- links ------------------------------------------------------------------------------------

CONTAINERS = frozenset({"bridge", "macvtap", "tun", "veth"})
"""Kinds of links that lead to containers and guests: their packets leave through an uplink."""

OVERLAYS = {"geneve": 30, "vxlan": 30}
"""Kinds of tunnels that the VM ends itself, and the bytes that they add to a packet besides an IP
header: Ethernet 14, UDP 8, tunnel 8. Their packets are the VM's own, and encrypted."""


class Misfit(Struct, frozen=True):
    """A link whose largest packets do not fit into ESP on an uplink.

    Attributes:
        link: the link.
        fits: the MTU that it may have, in bytes.
        uplink: the uplink with the smallest MTU.
        idle: nothing uses it now: it is down, or a bridge without a port.
    """

    link: Link
    fits: int
    uplink: Link
    idle: bool = False

    @property
    def remedy(self) -> str:
        """The command that corrects it on this VM until the link is created again."""
        return f"ip link set dev {quote(self.link.name)} mtu {self.fits}"


def judge_links(
    uplinks: tuple[Link, ...], network: NetworkFacts, carriage: Carriage
) -> tuple[Misfit, ...]:
    """The links behind this VM whose packets are too large for ESP on its uplinks.

    Judged are the kinds of CONTAINERS and OVERLAYS. Not judged: an uplink, the bridge or bond that
    it is a port of, and the other ports of either, since what is bridged there has an address of
    its own on the wire. A second NIC, a VLAN and the loopback are no business of ours either.
    """
    if not uplinks:
        return ()
    uplink = min(uplinks, key=lambda link: link.mtu)
    outward = {link.index for link in uplinks} | {link.master for link in uplinks}
    fits = required(uplink.mtu, carriage)
    tunnel_header = max(IP_HEADER[version] for version in carriage.versions)
    limits = dict.fromkeys(CONTAINERS, fits) | {
        kind: fits - tunnel_header - more for kind, more in OVERLAYS.items()
    }
    with_ports = {link.master for link in network.links}
    return tuple(
        Misfit(link, limits[link.kind], uplink, _idle(link, with_ports))
        for link in network.links
        if link.kind in limits
        and link.mtu > limits[link.kind]
        and link.index not in outward
        and link.master not in outward - {0}
    )


def _idle(link: Link, with_ports: set[int]) -> bool:
    return not link.up or (link.kind == "bridge" and link.index not in with_ports)


def wanted(misfits: tuple[Misfit, ...], *, may_enter: bool) -> tuple[tuple[int, int], ...]:
    """Index and MTU of each link that `agent.mtu: fix` lowers; ports before their bridge.

    Of a veth the end inside the container must be lowered first; where that cannot be entered,
    this end is left alone, since it would lose what passed before; see host/veth.py.
    """
    able = (
        misfit
        for misfit in misfits
        if may_enter or not (misfit.link.kind == "veth" and misfit.link.elsewhere)
    )
    ordered = sorted(able, key=lambda misfit: misfit.link.kind == "bridge")
    return tuple((misfit.link.index, misfit.fits) for misfit in ordered)


def carriage(config: Config, desired: Desired) -> Carriage | None:
    """How this VM's packets travel; None where it encrypts nothing."""
    versions = families(desired)
    if not versions:
        return None
    return Carriage(
        suites(config.esp_proposals), tuple(sorted(versions)), config.force_udp_encapsulation
    )
